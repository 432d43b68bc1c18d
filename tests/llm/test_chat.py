"""Chat templates: what models' own templates do, and what templates may not."""

import datetime
import sys
import threading
import time

import pytest

from nums_core.errors import ModelFileError
from nums_core.llm.chat import MAX_TEMPLATE_CHARS, plain, render_chat

pytest.importorskip("jinja2")

USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": " Hello. "}
CHATML = ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind."
          "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
          "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def test_a_model_s_own_template():
    assert render_chat(CHATML, [USER]) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert render_chat(CHATML, [{"role": "system", "content": "x"}], add_generation_prompt=False) == (
        "<|im_start|>system\nx<|im_end|>\n")


WORKS = {
    "{{ bos_token }}[INST] {{ messages[0].content }} [/INST]{{ messages[-1]['content'].strip() }}{{ eos_token }}":
        "<s>[INST] Hi [/INST]Hello.</s>",
    "{% for m in messages[::-1] %}\n  {%- set role = m.role ~ ':' %}\n  {{- role }}{{ m.content | trim }};\n{% endfor %}":
        "assistant:Hello.;\nuser:Hi;\n",
    "{% set ns = namespace(text='', seen=[]) %}{% for m in messages %}{% set ns.text = ns.text ~ m.role[0] %}"
    "{% set ns.seen = ns.seen + [m.role] %}{% endfor %}{{ ns.text }} {{ ns.seen | join('-') }}": "ua user-assistant",
    "{% for m in messages %}{% generation %}{{ m.role }}{% endgeneration %}{% if loop.index0 == 0 %}{% break %}{% endif %}{% endfor %}":
        "user",
    "{{ tools | tojson }}|{{ tools | tojson(indent=2) }}": '[{"é": "<b>"}]|[\n  {\n    "é": "<b>"\n  }\n]',
    "{{ strftime_now('%d %b %Y') }}": "29 Feb 2024",
    "{% macro show(x, n=2) %}{{ x * n }}{% endmacro %}{{ show('ab') }}{{ show('-', n=20) }}": "abab" + "-" * 20,
    "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list }}": "['Hi']",
    "{% if 'tools' is defined and messages|length == 2 and not documents %}{{ 'a%s' % 7 }}{{ '{}/{:>3}'.format(1, 2) }}{% endif %}":
        "a71/  2",
    "{% for k, v in {'b': 1, 'a': (2, 3)} | dictsort %}{{ k }}{{ v }}{% endfor %}{{ dict(x=1).x }}": "a(2, 3)b11",
    "{{ messages[0].get('name', 'nobody') }}{{ messages[0].content.replace('H', 'h').split('i')[0] }}{{ thinking }}": "nobodyhyes",
    "{% for m in messages %}{{ loop.cycle('x', 'y') }}{% else %}none{% endfor %}{{ range(3) | list }}": "xy[0, 1, 2]",
    "{% set x %}<{{ messages[0].content }}>{% endset %}{{ x | upper }}{{ missing }}{{ missing | default('d') }}": "<HI>d",
}


@pytest.mark.parametrize("template", WORKS)
def test_what_templates_do(template):
    made = render_chat(template, [USER, ANSWER], tools=[{"é": "<b>"}], now=datetime.datetime(2024, 2, 29), bos_token="<s>",
                       eos_token="</s>", thinking="yes")
    assert made == WORKS[template]


@pytest.mark.parametrize("template", [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ messages.__init__.__globals__ }}", "{{ ''['__class__'] }}",
    "{{ messages|attr('__class__') }}", "{{ messages|map(attribute='__class__')|list }}", "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}", "{{ raise_exception.__globals__ }}", "{{ strftime_now.__closure__ }}",
    "{{ namespace.__init__ }}", "{{ '{0.__class__}'.format(1) }}", "{{ '{x.__class__}'.format_map({'x': 1}) }}",
    "{% if ''.__class__ %}x{% endif %}", "{{ messages.append(1) }}", "{{ messages[0].update(x=1) }}",
    "{% macro m() %}{% endmacro %}{{ m.__class__ }}", "{{ loop_.__class__ }}",
])
def test_a_template_that_tries_to_escape_is_refused(template):
    with pytest.raises(ModelFileError, match=r"template of evil\.gguf.*(refused: it reaches for the attribute|use another)"):
        render_chat(template, [USER], name="template of evil.gguf")


@pytest.mark.parametrize("template", [
    "{{ 'x' * 10**10 }}", "{{ [1] * 10**10 }}", "{{ 2 ** (10**10) }}", "{{ 'x'.center(10**10) }}", "{{ 'x'|center(10**10) }}",
    "{{ 'x'.ljust(width=10**10) }}", "{{ '%10000000000d' % 1 }}", "{{ '%*d' % (10**10, 1) }}", "{{ '{:>10000000000}'.format(1) }}",
    "{{ '{:>{}}'.format(1, 10**10) }}", "{{ 'x'|format|indent(10**10) }}", "{{ '%10000000000d'|format(1) }}", "{{ 1|round(10**10) }}",
    "{{ [1]|tojson(indent=10**10) }}", "{{ ('\n' * 100000)|indent(9999) }}", "{% filter center(10**10) %}x{% endfilter %}",
    "{{ 'aa'.translate({97: 'x' * 9999999}).translate({120: 'x' * 9999}) }}", "{{ range(99999)|map('center', 9999)|list }}",
    "{% set n = namespace(x='xx') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "{% set n = namespace(x='xx') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "{% set n = namespace(x='xx') %}{% for i in range(60) %}{% set n.x = n.x.replace('x', 'xx') %}{% endfor %}",
    "{% set n = namespace(x='xx') %}{% for i in range(60) %}{% set n.x = n.x|replace('x', 'xx') %}{% endfor %}",
    "{% set n = namespace(x='xx') %}{% for i in range(60) %}{% set n.x = [n.x, n.x]|join %}{% endfor %}",
    "{% set n = namespace(x='xx') %}{% for i in range(60) %}{% set y %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = y %}{% endfor %}",
    "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x == 1 }}",
    "{% set n = namespace(x=(1,)) %}{% for i in range(60) %}{% set n.x = (n.x, n.x) %}{% endfor %}{{ n.x }}",
    "{% set n = namespace(x=1) %}{% for i in range(60) %}{% set n.x = {'a': n.x, 'b': n.x} %}{% endfor %}{{ n.x }}",
    "{% set n = namespace(x=1) %}{% for i in range(60) %}{% set n.x = dict(a=n.x, b=n.x) %}{% endfor %}{{ n.x }}",
    "{% set n = namespace(x=1) %}{% for i in range(60) %}{% set n.x = namespace(a=n.x, b=n.x) %}{% endfor %}{{ n.x }}",
    "{% set n = namespace(x=3) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}{{ n.x }}",
    "{% for i in range(99999) %}" + "x" * 9999 + "{% endfor %}",
    "{% for i in range(99999) %}{{ messages[0].content * 9999 }}{% endfor %}",
    "{% set x %}{% for i in range(99999) %}" + "x" * 9999 + "{% endfor %}{% endset %}",
    "{% set r = range(99999) %}{% for a in r %}{% for b in r %}{% endfor %}{% endfor %}",
    "{% macro f() %}{% for i in range(99999) %}{{ f }}{% endfor %}{% endmacro %}{% for i in range(99999) %}{{ f() }}{% endfor %}",
])
def test_a_template_is_bounded(template):
    began = time.perf_counter()
    with pytest.raises(ModelFileError, match=r"chat template was refused: it (would build|took longer than).*a template that you trust"):
        render_chat(template, [USER], timeout_s=0.2)
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("template, message", [
    ("{% if %}", "t, line 1: .*no template that can be read"),
    ("\n\n{% endfor %}", "t, line 3: .*Pass another one"),
    ("{{ raise_exception('roles must alternate') }}", "t: roles must alternate; change the messages"),
    ("{{ nothing.here }}", "t: 'nothing' is undefined; change the messages"),
    ("{{ 1 + 'a' }}", "t failed: TypeError.*change the messages"),
    ("{{ 1 // 0 }}", "t failed: ZeroDivisionError"),
    ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "t failed: too much nesting or recursion"),
    ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "t failed: too much nesting or recursion"),
    ("{% include '/etc/passwd' %}", "t failed: .*no loader"),
    ("{{ range(10**10) }}", "t failed: OverflowError: Range too big"),
    ("{{ lipsum() }}", "t: 'lipsum' is undefined"),
    ("x" * (MAX_TEMPLATE_CHARS + 1), f"t has {MAX_TEMPLATE_CHARS + 1} characters; more than {MAX_TEMPLATE_CHARS} are not read"),
])
def test_a_template_that_fails_says_why(template, message):
    with pytest.raises(ModelFileError, match="^" + message):
        render_chat(template, [USER], name="t")


def test_one_hostile_template_leaves_others_alone():
    made = []
    good = threading.Thread(target=lambda: made.extend(render_chat(CHATML, [USER, ANSWER] * 20) for _ in range(20)))
    good.start()
    for _ in range(3):
        with pytest.raises(ModelFileError):
            render_chat("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", [USER], timeout_s=0.05)
    good.join()
    assert len(set(made)) == 1 and len(made) == 20


def test_a_tracer_is_put_back():
    def tracer(frame, event, arg):
        return None

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        render_chat("{{ messages[0].role }}", [USER])
        found = sys.gettrace()
    finally:
        sys.settrace(before)
    assert found is tracer


def test_messages_are_mappings():
    with pytest.raises(TypeError, match=r'message 1 is a str; a message is a dict such as {"role"'):
        render_chat(CHATML, [USER, "Hi"])


def test_the_template_sees_plain_data_alone():
    class Loud(str):
        def leak(self):
            return "secret"

    class Thing:
        secret = "secret"

    found = plain({"a": Loud("x"), "b": Thing(), "c": (1, 2.5, None, True), "d": {1: [Thing]}})
    assert found == {"a": "x", "b": "<Thing>", "c": [1, 2.5, None, True], "d": {1: ["<type>"]}}
    assert type(found["a"]) is str
    with pytest.raises(ModelFileError, match="no attribute 'leak'"):
        render_chat("{{ messages[0].content.leak() }}", [{"content": Loud("x")}])
    loop = []
    loop.append(loop)
    with pytest.raises(ValueError, match="nest more than 32 deep; flatten them"):
        render_chat("x", [{"content": loop}])
