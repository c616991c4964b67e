"""`vimgvc head`."""

from __future__ import annotations

from vimgvc.cli import documents, render, session, verb

app = verb.new_app()


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc head                    note what it prints away from the repository
      vimgvc head -v                 and where each branch and tag is
      vimgvc log --expect-head 12-0123456789abcdef0123
                                  exit code 22 unless it holds that, or more

    A machine that opens a repository for the first time cannot know whether somebody
    withholds its newest commits. With a fingerprint it can: the repository may have
    grown since, but must hold all that it held.
    """,
)
def head(run: session.Session) -> None:
    """Print a fingerprint of where all branches and tags are."""
    from vimgvc.commands import head as command

    repository = run.repository()
    found = command.run(repository)
    if run.out.json:
        values = [
            {
                "kind": ref.entry.kind,
                "name": ref.entry.name,
                "entry": ref.seq,
                "hash": ref.hash,
                "commit": ref.entry.commit,
            }
            for ref in found.ends
        ]
        facts: documents.Document = {"head": found.fingerprint, "repository": repository.id, "logs": values}
        run.out.document(facts)
        return
    run.out.lines([found.fingerprint])
    for ref in found.ends:
        where = render.short(ref.entry.commit) if ref.entry.commit else "deleted"
        run.out.detail(f"{ref.entry.kind} {ref.entry.name}: {where}, entry {ref.seq}")
