"""What Alembic runs: on the connection that :mod:`cloudconnect.repository.catalogue` hands over."""

from alembic import context

from cloudconnect.repository.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
