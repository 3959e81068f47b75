"""Print what changed between two vLLM versions of all that this package relies on.

The versions are read, not imported. What the package relies on is listed in
``tests/support/upstream_contract.py``.

Usage: compare_vllm.py [OLD] NEW; OLD is the newest version supported.
"""

import ast
import difflib
import re
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from vllm_releases import CPU_BUILDS, sources

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.support.upstream_contract import ASKED_FOR, CONTRACT, FUNCTIONS, MODULES

KEEPS_STATE = ("Scheduler", "AsyncScheduler", "Request", "RequestQueue")
"""Classes whose new attributes may want to be set, counted or mirrored by ours."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Class:
    """What a class of vLLM has, its bases included, by name."""

    file: Path | None = None
    functions: dict[str, Function] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    """The class that each attribute and function is from, the nearest first."""

    def names(self, owner: str) -> set[str]:
        """Names but those of a base that has its own lines."""
        return {n for n, base in self.origin.items() if base == owner or base not in MODULES}


def main(old: str, new: str) -> int:
    before, after = sources(old), sources(new)
    print(f"vLLM {old} -> {new}: what this package relies on\n")
    for owner in sorted({*CONTRACT, *FUNCTIONS}):
        was, now = read(before, owner), read(after, owner)
        lines = changes(owner, was, now)
        if lines:
            moved = "" if was.file == now.file else f", moved from {was.file}"
            print(f"{owner} ({now.file}{moved})")
            print("".join(f"    {line}\n" for line in lines))
    print(f"read: diff -u {before}/FILE {after}/FILE\nthen: CONTRIBUTING.md, Add a vLLM version")
    return 0


def changes(owner: str, was: Class, now: Class) -> list[str]:
    """What differs in a class, what matters most first."""
    if now.file is None:
        return ["GONE: no class of that name"]
    if was.file is None:
        return ["new"]
    used = FUNCTIONS.get(owner, {})
    told = was.names(owner) | now.names(owner)
    gone, new = (told & (set(a.origin) - set(b.origin)) for a, b in ((was, now), (now, was)))
    relied = told & {*CONTRACT.get(owner, ()), *used, *ASKED_FOR}
    if "*" in used:
        relied |= told
    lines = [f"GONE: {name}" for name in sorted(relied & gone)]
    lines += [f"NEW: {name}, {used.get(name, 'asked for')}" for name in sorted(relied & new)]
    for name in sorted(relied & set(was.functions) & set(now.functions)):
        lines += function_changes(name, used.get(name, used.get("*", "called")), was, now)
    if owner in KEEPS_STATE:
        for what, names in {"gone": gone, "new": new}.items():
            if rest := sorted(names - relied):
                lines.append(f"also {what}: {', '.join(rest)}")
    return lines


def function_changes(name: str, use: str, was: Class, now: Class) -> list[str]:
    """Whether a function's parameters, its place or, where ours runs with it, its body differ."""
    old, new = was.functions[name], now.functions[name]
    lines = []
    before, after = parameters(old), parameters(new)
    if before != after:
        differ = [f"-({each})" for each in before if each not in after]
        differ += [f"+({each})" for each in after if each not in before]
        lines.append(f"PARAMETERS: {name}, {use}: {' '.join(differ) or 'another order'}")
    if was.origin[name] != now.origin[name]:
        lines.append(f"MOVED: {name} is {now.origin[name]}'s, was {was.origin[name]}'s, {use}")
    if use != "called" and (body(old) != body(new)):
        diff = list(difflib.ndiff(body(old), body(new)))
        added, removed = (sum(line[0] == sign for line in diff) for sign in "+-")
        lines.append(f"body: {name}, {use}: +{added} -{removed} lines, at line {new.lineno}")
    return lines


def parameters(function: Function) -> list[str]:
    return [part.strip() for part in re.split(r",(?![^\[(]*[\])])", ast.unparse(function.args))]


def body(function: Function) -> list[str]:
    """A function's statements, without comments, docstring and layout."""
    documented = ast.get_docstring(function) is not None
    return [
        line
        for statement in function.body[documented:]
        for line in ast.unparse(statement).splitlines()
    ]


def read(folder: Path, owner: str) -> Class:
    """A class of a version, by the module that ours takes it from, else by its name."""
    file = Path(MODULES[owner].replace(".", "/") + ".py")
    if not (folder / file).is_file():
        file = file.with_suffix("") / "__init__.py"
    found = Class()
    gather(folder, file, owner, found)
    if found.file is None:
        for path in sorted((folder / "vllm").rglob("*.py")):
            if re.search(rf"^class {owner}\b", path.read_text(), re.MULTILINE):
                gather(folder, path.relative_to(folder), owner, found)
                break
    return found


def gather(folder: Path, file: Path, name: str, found: Class) -> None:
    """Add what a class and its bases have; a file that only imports it leads to where it is."""
    if not (folder / file).is_file():
        return
    tree = parsed(folder / file)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            add(node, found)
            found.file = found.file or file
            for base in node.bases:
                gather(folder, file, ast.unparse(base).partition("[")[0], found)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vllm"):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    module = Path(*(node.module or "").split("."))
                    for there in (module.with_suffix(".py"), module / "__init__.py"):
                        gather(folder, there, alias.name, found)


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def add(node: ast.ClassDef, found: Class) -> None:
    """Add what a class defines, and what its methods set on ``self``."""
    names = set[str]()
    for item in node.body:
        if isinstance(item, Function):
            names.add(item.name)
            found.functions.setdefault(item.name, item)
        elif isinstance(item, ast.AnnAssign | ast.Assign):
            targets = [item.target] if isinstance(item, ast.AnnAssign) else item.targets
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    names |= {
        inner.attr
        for inner in ast.walk(node)
        if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store)
        if isinstance(inner.value, ast.Name) and inner.value.id == "self"
    }
    for name in names:
        found.origin.setdefault(name, node.name)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit("a version of vLLM is needed, such as VLLM=0.34.0")
    raise SystemExit(
        main(sys.argv[1] if len(sys.argv) == 3 else list(CPU_BUILDS)[-1], sys.argv[-1])
    )
