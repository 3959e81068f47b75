"""Which attributes of vLLM's objects a piece of source touches.

vLLM's objects are untyped here: a parameter, field or result annotated ``Any``, or as a
collection of ``Any``, is one. So is what is imported from vLLM, and what is read from,
called on or iterated out of such an object.
"""

import ast
import re
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

ANY = re.compile(r"(?:(?:list|tuple|Iterable|Collection|Sequence|frozenset|set)\[)?Any\b[^\[]*")
NAME = re.compile(r"_?[a-z][a-z0-9]*(?:_[a-z0-9]+)+")
PASS_ON = {"list", "tuple", "sorted", "reversed", "frozenset", "set", "iter", "next", "islice"}
BY_NAME = {"getattr", "hasattr", "setattr", "overridden"}
BUILTIN = {name for kind in (list, dict, set, str, int, deque) for name in dir(kind)}


def touched(files: Iterable[Path]) -> dict[str, str]:
    """Names of attributes, each with the file that touches it first."""
    trees = {file: ast.parse(file.read_text()) for file in files}
    fields, results, own = set[str](), set[str](), set[str]()
    for node in (node for tree in trees.values() for node in ast.walk(tree)):
        if isinstance(node, ast.ClassDef):
            own |= set(_own_names(node))
            fields |= {
                item.target.id
                for item in node.body
                if isinstance(item, ast.AnnAssign)
                and isinstance(item.target, ast.Name)
                and _is_any(item.annotation)
            }
        elif isinstance(node, ast.FunctionDef) and _is_any(node.returns):
            results.add(node.name)
    found: dict[str, str] = {}
    for file, tree in trees.items():
        walk = _Walk(fields, results, own, _imported(tree))
        walk.read(tree)
        for name in sorted(walk.found):
            found.setdefault(name, file.name)
    return found


class _Walk:
    """One scope: the names in it that stand for vLLM's objects, and what is read from them."""

    def __init__(self, fields: set[str], results: set[str], own: set[str], known: set[str]) -> None:
        self.fields, self.results, self.own = fields, results, own
        self.known = set(known)
        self.found = set[str]()

    def read(self, scope: ast.AST) -> None:
        inner = list(_nodes(scope))
        while True:  # a name may be used above the line that says what it is
            before = len(self.known)
            for node in inner:
                self._bind(node)
            if len(self.known) == before:
                break
        for node in inner:
            if isinstance(node, ast.Attribute) and self._is_vllms(node.value):
                self.found.add(node.attr)
            elif isinstance(node, ast.FunctionDef | ast.Lambda):
                function = _Walk(self.fields, self.results, self.own, self.known)
                function.known |= set(_parameters(node))
                function.read(node)
                self.found |= function.found
        calls = {
            n.func.id for n in inner if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        }
        if calls & BY_NAME:
            words = {n.value for n in inner if isinstance(n, ast.Constant)}
            names = {word for word in words if isinstance(word, str) and NAME.fullmatch(word)}
            self.found |= names - self.own
        self.found -= BUILTIN

    def _bind(self, node: ast.AST) -> None:
        if isinstance(node, ast.AnnAssign) and _is_any(node.annotation):
            self._name(node.target)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                self._assign(target, node.value)
        elif isinstance(node, ast.For | ast.comprehension):
            self._assign(node.target, node.iter)
        elif isinstance(node, ast.NamedExpr):
            self._assign(node.target, node.value)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for one, its in zip(target.elts, value.elts, strict=False):
                self._assign(one, its)
        elif self._is_vllms(value):
            self._name(target)

    def _name(self, target: ast.expr) -> None:
        self.known |= {node.id for node in ast.walk(target) if isinstance(node, ast.Name)} - {
            "self"
        }

    def _is_vllms(self, node: ast.expr) -> bool:
        match node:
            case ast.Name(id=name):
                return name in self.known
            case ast.Attribute(value=value, attr=name):
                return name in self.fields or self._is_vllms(value)
            case ast.Call(func=ast.Name(id=name), args=arguments):
                is_passed_on = name in PASS_ON and any(map(self._is_vllms, arguments))
                return name in self.results | {"super"} or is_passed_on or name in self.known
            case ast.Call(func=ast.Attribute(value=value)) | ast.Subscript(value=value):
                return self._is_vllms(value)
            case ast.Starred(value=value):
                return self._is_vllms(value)
            case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.BoolOp(values=parts):
                return any(map(self._is_vllms, parts))
            case ast.IfExp(body=body, orelse=other):
                return self._is_vllms(body) or self._is_vllms(other)
            case ast.ListComp(elt=element) | ast.GeneratorExp(elt=element):
                return self._is_vllms(element)
        return False


def _nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a scope; of functions inside it, only the definition."""
    todo = list(ast.iter_child_nodes(scope))
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.Lambda):
            todo += ast.iter_child_nodes(node)


def _parameters(node: ast.FunctionDef | ast.Lambda) -> Iterator[str]:
    """Parameters that are vLLM's objects; those of a lambda may be."""
    for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
        if isinstance(node, ast.Lambda) or _is_any(argument.annotation):
            yield argument.arg


def _imported(tree: ast.AST) -> set[str]:
    """Names imported from vLLM, but for its logger."""
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vllm"
        for alias in node.names
        if node.module != "vllm.logger"
    }


def _own_names(node: ast.ClassDef) -> Iterator[str]:
    """Fields and attributes that a class of ours defines."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name):
            yield inner.target.id
        elif isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
            yield inner.attr


def _is_any(annotation: ast.expr | None) -> bool:
    return annotation is not None and ANY.fullmatch(ast.unparse(annotation)) is not None
