"""`nums generate` with a tiny model: text on the one stream, progress on the other where somebody watches."""

import io

import pytest

from nums_core.cli import generate
from nums_core.cli.main import main
from nums_core.llm.engine.sequence import Completion, Delta

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from nums_core.testing.models import write_tiny_llama  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write_tiny_llama(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def expected(folder):
    from nums_core.llm.llm import LLM

    llm = LLM(folder, max_batch=1)
    return lambda prompt, **how: llm.generate(prompt, **how)[0].text


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_writes_the_text_and_nothing_else(folder, expected, capsys):
    assert main(["generate", folder, "Once", "--max-tokens", "12", "--temperature", "0.9", "--seed", "3"]) == 0
    out, err = capsys.readouterr()
    assert out == expected("Once", max_tokens=12, temperature=0.9, seed=3) + "\n"
    assert err == ""


def test_reads_the_prompt_from_standard_input(folder, expected, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("Dear diary,\n"))
    assert main(["generate", folder, "-", "--max-tokens", "5"]) == 0
    assert capsys.readouterr().out == expected("Dear diary,\n", max_tokens=5) + "\n"


def test_a_question_goes_through_the_chat_template(folder, expected, capsys):
    assert main(["generate", folder, "--chat", "--system", "Be short.", "Why?", "--max-tokens", "6"]) == 0
    prompt = "<|start|>system: Be short.<|end|><|start|>user: Why?<|end|><|start|>assistant: "
    assert capsys.readouterr().out == expected(prompt, max_tokens=6) + "\n"


@pytest.mark.parametrize("arguments, message", [
    (["x" * 500], "request 0: the prompt has 500 tokens"),
    (["x", "--kv-policy", "h20"], "did you mean 'h2o'"),
    (["x", "--top-p", "1.5"], "top_p is 1.5; it must be"),
    (["x", "--memory", "1"], "a page of 16 tokens takes"),
])
def test_errors_are_one_line(folder, capsys, arguments, message):
    assert main(["generate", folder, *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("nums: ") and message in err and err.count("\n") == 1


def test_an_unknown_model_is_an_error(tmp_path, capsys):
    assert main(["generate", str(tmp_path / "none.gguf"), "x"]) == 1
    assert "no such file or folder" in capsys.readouterr().err


def pieces(texts):
    for k, text in enumerate(texts):
        last = k == len(texts) - 1
        done = Completion("0", (1, 2), tuple(range(len(texts))), "".join(texts), (), "length") if last else None
        yield Delta("0", text, (k,), done)


@pytest.mark.parametrize("out", [io.StringIO, Terminal])
def test_progress_is_one_line_that_never_tears_the_text(out, monkeypatch):
    monkeypatch.setattr(generate, "EVERY_S", 0.0)
    out, err = out(), Terminal()
    assert generate.show(pieces(["Once", " upon", " a time"]), 2, out, err) is None
    assert out.getvalue() == "Once upon a time\n"
    lines = err.getvalue().split(generate.CLEAR)[1:]
    assert lines[0] == "reading 2 tokens ..." and lines[1] == ""
    assert lines[-1].startswith("2 tokens read, first token after ") and "3 tokens made, " in lines[-1]
    assert lines[-1].endswith(" tokens/s\n")
    assert len(lines) == (3 if out.isatty() else 6)  # where the text goes elsewhere, the line may live


def test_silent_where_nobody_watches():
    err = io.StringIO()
    generate.show(pieces(["a", "b"]), 2, io.StringIO(), err)
    assert err.getvalue() == ""
