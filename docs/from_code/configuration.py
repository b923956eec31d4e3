"""The keys of every verb and of every option of a group, read by what `citygrain <verb> --help` reads them with."""

from __future__ import annotations

from from_code import source
from from_code.markdown import block, code, option_target, table, target, text


def pages() -> dict[str, str]:
    """Return a page for each verb and each group, and the tables of both."""
    verbs = {f"configuration/{verb}.md": _verb(verb) for verb in source.VERBS}
    groups = {f"configuration/{_group_page(group)}.md": _group(group) for group in source.list_groups()}
    return {**verbs, **groups, "made/verbs.md": _verbs(), "made/groups.md": _groups(), "made/flags.md": _flags()}


def _group_page(group: str) -> str:
    return f"group_{group.replace('/', '_')}"


def _verbs() -> str:
    rows = [
        [f"[`citygrain {verb}`](configuration/{verb}.md)", text(about.does)] for verb, about in source.VERBS.items()
    ]
    pages = "\n".join(f"configuration/{verb}" for verb in source.VERBS)
    return table(("verb", "does"), rows, (1, 3)) + f"\n```{{toctree}}\n:hidden:\n:caption: Verbs\n\n{pages}\n```\n"


def _groups() -> str:
    rows = [
        [f"[{code(group)}](configuration/{_group_page(group)}.md)", ", ".join(map(code, options))]
        for group, options in source.list_groups().items()
    ]
    pages = "\n".join(f"configuration/{_group_page(group)}" for group in source.list_groups())
    return table(("group", "options"), rows, (1, 4)) + f"\n```{{toctree}}\n:hidden:\n:caption: Groups\n\n{pages}\n```\n"


def _flags() -> str:
    return table(("flag", "does"), [[code(flag), text(does)] for flag, does in source.FLAGS.items()], (1, 3))


def _verb(verb: str) -> str:
    about = source.VERBS[verb]
    lines = [
        target(f"verb-{verb}"),
        f"# citygrain {verb}\n",
        f"{text(about.does[0].upper() + about.does[1:])}.\n",
        block("sh", "\n".join((about.example, *about.more))),
    ]
    taken = source.list_group_defaults(verb)
    if taken:
        rows = []
        for group, chosen in taken.items():
            name = group.split("@")[0]
            default = ", ".join(map(code, chosen if isinstance(chosen, list) else [chosen] if chosen else []))
            options = ", ".join(map(code, source.list_groups().get(name, [])))
            rows.append([f"[{code(group)}]({_group_page(name)}.md)", default or "–", options])
        lines += ["## Groups\n", "`group=option` on the command line.\n"]
        lines.append(table(("group", "taken unless told otherwise", "options"), rows, (2, 1, 4)))
    lines += ["## Keys\n", "`key=value` on the command line.\n", _keys(verb)]
    return "\n".join(lines)


def _group(group: str) -> str:
    lines = [target(f"group-{group.replace('/', '-')}"), f"# {group}=\n"]
    takers = [
        verb for verb in source.VERBS if any(group == key.split("@")[0] for key in source.list_group_defaults(verb))
    ]
    places = sorted({key for verb in takers for key in source.list_group_defaults(verb) if key.split("@")[0] == group})
    if takers:
        verbs = ", ".join(f"[{verb}]({verb}.md)" for verb in takers)
        lines.append(f"Taken by {verbs}, as {', '.join(code(f'{place}=…') for place in places)}.\n")
    else:
        lines.append("Taken by other options only: where one names it, it is chosen as `group@place=option`.\n")
    for option in source.list_groups()[group]:
        file = source.find_file(f"{group}/{option}")
        about, _ = source.read_comments(file) if file else ("", [])
        lines += [
            target(option_target(group, option)),
            f"## {group}={option}\n",
            f"{text(about)}\n" if about else "",
            _keys(f"{group}/{option}"),
        ]
        if inherited := _inherited(f"{group}/{option}"):
            lines.append(f"Further keys are those of {', '.join(code(f'{group}={name}') for name in inherited)}.\n")
    return "\n".join(lines)


def _inherited(option: str) -> list[str]:
    defaults = source.yaml_of(option).get("defaults", [])
    return [entry for entry in defaults if isinstance(entry, str) and entry != "_self_"]


def _keys(option: str) -> str:
    file = source.find_file(option)
    keys = source.read_comments(file)[1] if file else []
    rows = []
    for key, says in keys:
        name, value = key.split("=", 1) if "=" in key else (key.rstrip(":"), "")
        rows.append([code(name), code(value), text(says)])
    return table(("key", "default", "meaning"), rows, (3, 2, 6)) if rows else ""
