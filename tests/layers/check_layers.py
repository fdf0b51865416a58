#!/usr/bin/env python3
"""Rules that a compiler does not know: the layer table, where families and platforms are named, file sizes, paths.

usage: check_layers.py --root DIR {includes,families,platforms,sizes,paths}

Prints one line per violation, `file:line: what`, and exits with 1 if there is any. Standard library only.
"""
import argparse
import pathlib
import re
import sys

CODE = {".cc", ".h", ".cu", ".cuh"}
TEXT = CODE | {".py", ".sh", ".md", ".txt", ".cmake", ".json", ".js", ".css", ".html", ".yml", ".toml", ""}
# Data and what a build makes; models/ holds data beside its card.
SKIPPED = {".git", "build", "fixtures", "corpus", "__pycache__", ".venv", ".cache", "third_party"}

# Words of identifiers and string literals, lower case, without the version after them.
FAMILIES = {
    "baichuan", "bigcode", "bloom", "chatglm", "deepseek", "falcon", "gemma", "gpt", "gptneox", "gptbigcode", "llama",
    "mistral", "mixtral", "mpt", "neox", "opt", "palm", "phi", "qwen", "santacoder", "starcoder", "xglm",
}
# Other people's programs and what they call their file formats; not families of ours.
PRODUCTS = re.compile(r"(ik_)?llama\.cpp|llama2\.c|chatgpt", re.IGNORECASE)
# Tokenizer files say how they split text in words that happen to be names of families, and one file knows those
# words: its string literals are free.
FORMAT_NAMES = "src/text/format_names.cc"
# What config.json calls one way of scaling RoPE, whatever the family, and a file name of tiktoken ranks.
OTHER_NAMES = re.compile(r'\bk?(Scale)?Llama3\b|"llama3"|"qwen\.tiktoken"')

PLATFORM_IF = re.compile(
    r"^\s*#\s*(if|ifdef|ifndef|elif)\b.*\b(__AVX\w*|__SSE\w*|__FMA__|__F16C__|__x86_64__|__amd64__|__i386__|_M_\w+|"
    r"__aarch64__|__arm__|__ARM_\w+|__NEON__|__riscv\w*|__powerpc\w*|_WIN32|_WIN64|__APPLE__|__linux__|__CUDA\w*)")
PLATFORM_INCLUDE = re.compile(r"^\s*#\s*include\s*<(immintrin|x86intrin|xmmintrin|emmintrin|arm_neon|arm_sve|cpuid)\.h>")
PLATFORM_HOMES = ("src/kernels/", "src/base/cpu")

MACHINE_PATH = re.compile(r"(?<![\w.:/{}$~-])/(work|root|home/\w+|Users/\w+|mnt/\w+)/[\w.]")


def files(root, suffixes, *folders):
    for folder in folders:
        top = root / folder
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            relative = path.relative_to(root)
            if path.is_file() and path.suffix in suffixes and not SKIPPED & set(relative.parts):
                yield path, relative.as_posix()


def lines_of(path):
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def read_table(root):
    """{folder: set of what it may include, or None for anything} from ARCHITECTURE.md."""
    table = {}
    for line in lines_of(root / "ARCHITECTURE.md"):
        row = re.fullmatch(r"\|\s*(\w+)/\s*\|.*\|\s*([\w ./]+?)\s*\|", line)
        if row:
            allowed = set(row.group(2).split())
            table[row.group(1)] = None if allowed == {"anything"} else allowed - {"nothing"}
    return table


def check_includes(root):
    table = read_table(root)
    if len(table) < 5:
        yield "ARCHITECTURE.md:1: the layer table is missing"
        return
    for folder in sorted(p.name for p in (root / "src").iterdir() if p.is_dir()):
        if folder not in table:
            yield f"src/{folder}: not in the layer table of ARCHITECTURE.md"
    for layer, allowed in table.items():
        for name in sorted(allowed or ()):
            if name.split("/")[0] not in table:
                yield f'ARCHITECTURE.md:1: {layer}/ may include "{name}", which is not a layer'
    for path, name in files(root, CODE, "src"):
        layer = name.split("/")[1]
        allowed = table.get(layer, set())
        for number, line in enumerate(lines_of(path), 1):
            include = re.match(r'\s*#\s*include\s*"([^"]+)"', line)
            if not include:
                continue
            target = include.group(1)
            if target.startswith(".") or "/../" in target:
                yield f'{name}:{number}: "{target}" is relative; write the path from src/'
                continue
            if "/" not in target:
                yield f'{name}:{number}: "{target}" has no folder; write the path from src/'
                continue
            other = target.split("/")[0]
            if other in (layer, "kvasir") or allowed is None:
                continue
            if other not in allowed and target not in allowed:
                may = " ".join(sorted(allowed)) or "nothing"
                yield f'{name}:{number}: {layer}/ may not include "{target}" (it may include: {may})'


def without_comments(text):
    """The same lines with comments blanked; string and character literals stay."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.DOTALL)

    def blank(match):
        token = match.group(0)
        return re.sub(r"[^\n]", " ", token) if token.startswith("/") else token

    return pattern.sub(blank, text)


def words(line):
    """Words of identifiers and literals: kLlama3Rope, is_gemma and "gpt-2" give llama, gemma and gpt."""
    for run in re.findall(r"[A-Za-z]+", line):
        for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", run):
            yield word.lower()
        yield run.lower()


def check_families(root):
    for path, name in files(root, CODE, "src", "include"):
        if name.startswith("src/model/families/") or re.search(r"_test\.cc$|test\w*\.h$", name):
            continue  # a test may say which files it reads
        text = without_comments(path.read_text(encoding="utf-8", errors="replace"))
        for number, line in enumerate(text.splitlines(), 1):
            line = PRODUCTS.sub("", line)
            if re.match(r'\s*#\s*include\s*"model/families/', line):
                line = ""  # the registry's own header
            line = OTHER_NAMES.sub("", line)
            if name == FORMAT_NAMES:
                line = re.sub(r'"[^"]*"', "", line)
            for family in sorted(FAMILIES & set(words(line))):
                # "opt" and "phi" are words of their own right in identifiers; as a literal they name a family.
                if family in ("opt", "phi") and not re.search(rf'"{family}[-_\d]*\w*"', line):
                    continue
                yield f'{name}:{number}: names the family "{family}"; only src/model/families/ may'


def check_platforms(root):
    for path, name in files(root, CODE, "src", "include"):
        if name.startswith(PLATFORM_HOMES):
            continue
        for number, line in enumerate(lines_of(path), 1):
            if PLATFORM_IF.search(line) or PLATFORM_INCLUDE.search(line):
                yield f"{name}:{number}: asks for a platform; only {' and '.join(PLATFORM_HOMES)}* may: {line.strip()}"


def check_sizes(root):
    folders = ("src", "include", "tests", "tools", "scripts", "cmake", "web", "bench")
    for path, name in files(root, TEXT - {".txt", ".json"}, *folders):
        lines = lines_of(path)
        if len(lines) > 1000 and not any("Generated by tools/" in line for line in lines[:5]):
            yield f"{name}:1: {len(lines)} lines; at most 1000"


def check_paths(root):
    folders = [p.name for p in sorted(root.iterdir()) if p.name not in SKIPPED]
    for path, name in files(root, TEXT, *folders):
        if path.stat().st_size > 1 << 20:
            continue
        for number, line in enumerate(lines_of(path), 1):
            found = MACHINE_PATH.search(line)
            if found:
                yield f"{name}:{number}: a path of somebody's machine: {found.group(0)}…"


CHECKS = {
    "includes": check_includes,
    "families": check_families,
    "platforms": check_platforms,
    "sizes": check_sizes,
    "paths": check_paths,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parents[2])
    parser.add_argument("check", choices=sorted(CHECKS))
    args = parser.parse_args()
    violations = list(CHECKS[args.check](args.root))
    for violation in violations:
        print(violation)
    print(f"{args.check}: {len(violations)} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
