"""Draw docs/demo.svg: run the demo on a terminal of its own, and keep what stood there in the end."""

from __future__ import annotations

import io
import os
import re
import sys
from itertools import groupby
from pathlib import Path

import pexpect
import pyte
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "demo.svg"
WIDTH, HEIGHT = 250, 300
"""The terminal is larger than the demo needs, so that nothing scrolls away and no line is broken in two."""
DRAWN = 112
"""How many characters wide the picture is."""
BEGINS, ENDS = "1.1.0 A good change", '{"good_release"'
LEFT_OUT = re.compile(r"\[(build_and_test|deploy_staging)/|run-\d")
"""What is the same in every run; where lines are left out, the picture says so."""
DETAILS, JOB, STORY = "Run:", re.compile(r"[├└]── "), re.compile(r"1\.\d\.0 A |Afterwards")
"""Of the details after a run the jobs are enough; the story goes on behind them."""
GAP = "  ⋮"
NAMED = {"brown": "yellow", "brightbrown": "bright_yellow"}


def record() -> pyte.Screen:
    """Run the demo and return the screen as it stood when it ended. Raises RuntimeError if the demo failed."""
    screen = pyte.Screen(WIDTH, HEIGHT)
    stream = pyte.ByteStream(screen)
    env = {**os.environ, "FORGE_DEMO_YES": "1", "TERM": "xterm-256color", "COLUMNS": str(WIDTH), "LINES": str(HEIGHT)}
    env.pop("NO_COLOR", None)
    child = pexpect.spawn(
        sys.executable, [str(ROOT / "demo" / "run.py")], dimensions=(HEIGHT, WIDTH), env=env, timeout=240
    )
    while True:
        try:
            stream.feed(child.read_nonblocking(65536, timeout=120))
        except pexpect.EOF:
            break
    child.close()
    if child.exitstatus != 0:
        raise RuntimeError("the demo failed:\n" + "\n".join(line.rstrip() for line in screen.display if line.strip()))
    return screen


def lines(screen: pyte.Screen) -> list[Text]:
    """Return what the picture shows: from the good release on, without the last line, which is for programs."""
    shown = [row_text(screen, row) for row in range(HEIGHT)]
    first = next(at for at, text in enumerate(shown) if BEGINS in text.plain)
    last = next(at for at, text in enumerate(shown) if text.plain.startswith(ENDS))
    kept: list[Text] = []
    in_details = False
    for text in shown[first:last]:
        if kept and STORY.match(text.plain):
            kept.append(Text())
        in_details = (in_details or text.plain.startswith(DETAILS)) and not STORY.match(text.plain)
        if in_details and JOB.match(text.plain):
            text.truncate(DRAWN, overflow="ellipsis")
            kept.append(text)
        elif not in_details and not LEFT_OUT.match(text.plain):
            kept.append(text)
        elif kept[-1].plain != GAP and not JOB.match(kept[-1].plain):
            kept.append(Text(GAP, Style(dim=True)))
    return kept


def row_text(screen: pyte.Screen, row: int) -> Text:
    """Return one line of the screen with its colours."""
    text = Text()
    cells = [screen.buffer[row][column] for column in range(WIDTH)]
    for (fg, bg, bold, italics), same in groupby(cells, key=lambda cell: (cell.fg, cell.bg, cell.bold, cell.italics)):
        style = Style(color=colour(fg), bgcolor=colour(bg), bold=bold, italic=italics)
        text.append("".join(cell.data for cell in same), style)
    text.rstrip()
    return text


def colour(name: str) -> str | None:
    """Return a colour of the terminal in Rich's words."""
    if name == "default":
        return None
    if re.fullmatch(r"[0-9a-f]{6}", name):
        return f"#{name}"
    return NAMED.get(name, name.replace("bright", "bright_") if name.startswith("bright") else name)


def draw(shown: list[Text]) -> str:
    """Return the picture. It refers to nothing outside itself, so its font is whatever is there."""
    console = Console(record=True, width=DRAWN, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line in shown:
        console.print(line)
    frame = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    frame = frame.replace("Fira Code", "ui-monospace, SFMono-Regular, Menlo, DejaVu Sans Mono")
    frame = frame.replace("<svg ", '<svg xml:space="preserve" ', 1)
    return console.export_svg(title="make demo", theme=MONOKAI, code_format=frame, unique_id="forge")


def main() -> int:
    """Run the demo and write the picture."""
    PICTURE.write_text(draw(lines(record())), encoding="utf-8")
    print(f"wrote {PICTURE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
