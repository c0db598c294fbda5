"""What Alembic runs: on the connection that :class:`..accounts.Accounts` hands over."""

from alembic import context

from cloudconnect.provider.accounts import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
