"""Layer 6: completion in a shell: what stands for a path, and the script that a shell reads.

Click completes commands and options by itself. A value is completed as a path only where its type
says that it is one; :data:`FILE` and :data:`FOLDER` say so and change nothing else about it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    _ParamType = click.ParamType[str]
else:
    _ParamType = click.ParamType  # before click 8.5 it has no parameter

#: Shells for which there is a script.
SHELLS: Final = ("bash", "zsh", "fish")


class Place(_ParamType):
    """A path as it was typed; whether there is anything is looked at by whoever uses it.

    :param kind: ``file`` or ``dir``
    """

    def __init__(self, kind: str) -> None:
        self.name = kind

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Have the shell look for files, or folders."""
        from click.shell_completion import CompletionItem  # here, as a shell alone wants it

        return [CompletionItem(incomplete, type=self.name)]


FILE: Final = Place("file")
FOLDER: Final = Place("dir")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes SHELL complete commands, options and paths.

    For bash: cloudconnect completion bash > ~/.local/share/bash-completion/completions/cloudconnect

    For zsh: cloudconnect completion zsh > DIR/_cloudconnect, where DIR is one of those in fpath.

    For fish: cloudconnect completion fish > ~/.config/fish/completions/cloudconnect.fish
    """
    from click.shell_completion import get_completion_class

    found: Any = get_completion_class(shell)
    assert found is not None
    root = ctx.find_root()
    script = found(root.command, {}, "cloudconnect", "_CLOUDCONNECT_COMPLETE")
    click.echo(script.source_template % script.source_vars())
