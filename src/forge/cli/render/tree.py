"""Trees for people: a run's jobs, an environment's arms, a plan. A view model in, lines out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import localtime, strftime

from forge.cli.render.paint import Paint, pad, shorten, strip_ansi, width
from forge.model.units import format_duration, format_size, format_weight
from forge.views.environment import ArmView, EnvironmentView
from forge.views.harm import environment_harm_words, harm_words
from forge.views.plan import JobOutline, PlanView, StepOutline, summary
from forge.views.release import ReleaseView
from forge.views.run import JobView, RunView, StepView


@dataclass(slots=True)
class Node:
    """A line of a tree and what hangs below it. `info` stands in a column of its own."""

    text: str
    info: str = ""
    below: list[Node] = field(default_factory=list)


def draw(nodes: Sequence[Node], *, max_width: int = 0) -> list[str]:
    """Return the lines of a tree, with the infos aligned; cut to `max_width` cells when it is given."""
    rows: list[tuple[str, str]] = []
    _collect(nodes, "", rows)
    column = min(max((width(text) for text, info in rows if info), default=0), 60)
    lines = [f"{pad(text, column)}  {info}".rstrip() if info else text.rstrip() for text, info in rows]
    return [shorten(line, max_width) for line in lines] if max_width else lines


def _collect(nodes: Sequence[Node], indent: str, rows: list[tuple[str, str]]) -> None:
    for at, node in enumerate(nodes):
        last = at == len(nodes) - 1
        rows.append((f"{indent}{'└──' if last else '├──'} {node.text}", node.info))
        _collect(node.below, indent + ("    " if last else "│   "), rows)


def header(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return `Name:  value` lines with aligned values; pairs without a value are left out."""
    shown = [(name, value) for name, value in pairs if value]
    column = max((len(name) for name, _ in shown), default=0) + 1
    return [f"{pad(name + ':', column)}  {value}" for name, value in shown]


def counted(number: int, word: str) -> str:
    """Return `1 replica`, `2 replicas`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def clock(at: float | None) -> str:
    """Return a time of day in the user's own time zone, `-` for none."""
    return "-" if at is None else strftime("%H:%M:%S", localtime(at))


def run_tree(view: RunView, paint: Paint, *, steps: bool = True) -> list[str]:
    """Return a run: header, then its jobs with their steps."""
    lines = header(
        [
            ("Run", paint.bold(view.id)),
            ("Pipeline", view.pipeline),
            ("Status", paint.state(view.state)),
            ("Message", view.message),
            ("Source", _source(view.commit, view.ref)),
            ("Started by", view.actor),
            ("Attempt", str(view.attempt) if view.attempt > 1 else ""),
            ("Duration", format_duration(view.duration) if view.duration is not None else ""),
        ]
    )
    lines.append("")
    lines += draw([job_node(job, paint, steps=steps) for job in view.jobs])
    return lines + next_lines(view.next, paint)


def next_lines(commands: Sequence[str], paint: Paint) -> list[str]:
    """Return `Next:` and the commands that make sense now."""
    return ["", "Next:", *(f"  {paint.cyan(command)}" for command in commands)] if commands else []


def job_node(job: JobView, paint: Paint, *, steps: bool) -> Node:
    """Return a job with its steps."""
    shown = [step for step in job.steps if step.state != "pending" or step.run_on == "success"] if steps else []
    if job.state in {"pending", "skipped", "blocked"}:
        shown = []
    return Node(
        f"{paint.icon(job.state)} {job.name}",
        job_info(job, paint),
        [_step_node(step, paint, told=job.message) for step in shown],
    )


def job_info(job: JobView, paint: Paint) -> str:
    """Return what there is to say of a job in one line."""
    parts = [job.state.replace("_", " ")]
    if job.duration is not None and job.started_at is not None:
        parts.append(format_duration(job.duration))
    if job.attempt > 1:
        parts.append(f"attempt {job.attempt}")
    if job.gate is not None and job.state == "waiting_approval":
        if job.gate.required > 1:
            parts.append(f"{len(job.gate.given)} of {job.gate.required} approved")
        parts.append(job.gate.message)
    elif job.waits_for:
        parts.append(f"waits for {job.waits_for.removeprefix('waits for ')}")
    if job.message:
        parts.append(paint.red(job.message) if job.state in {"failed", "error"} else job.message)
    return "  ".join(part for part in parts if part)


def _step_node(step: StepView, paint: Paint, *, told: str) -> Node:
    """`told` is what its job says already: long reasons are not repeated."""
    parts = []
    if step.duration is not None and step.state != "pending":
        parts.append(format_duration(step.duration))
    if step.attempt > 1:
        parts.append(f"attempt {step.attempt}")
    if step.exit_code:
        parts.append(paint.red(f"exit code {step.exit_code}"))
    if step.peak_memory:
        parts.append(paint.dim(format_size(step.peak_memory)))
    known = f"{told}\nexit code {step.exit_code}"
    if step.state not in {"succeeded", "pending"} and step.message not in known:
        parts.append(step.message)
    return Node(f"{paint.icon(step.state)} {_first_line(step.name)}", "  ".join(parts))


def _first_line(text: str, cells: int = 48) -> str:
    return shorten(strip_ansi(text.strip().split("\n", 1)[0]), cells)


def _source(commit: str, ref: str) -> str:
    return " ".join(part for part in (commit[:12], f"({ref})" if ref else "") if part)


def environment_tree(view: EnvironmentView, paint: Paint) -> list[str]:
    """Return an environment: header of the release to look at, then every version with its replicas."""
    release = view.current
    lines = header(
        [
            ("Environment", paint.bold(view.name)),
            ("Status", paint.state(view.state)),
            ("Address", view.address),
            ("Stable", view.stable or "none yet"),
            *(_release_header(release, paint) if release else []),
            ("30 days", environment_harm_words(view.harm) if view.harm and view.harm.releases > 1 else ""),
            ("Runs from", view.contracts[0] if view.contracts else ""),
            ("Problem", paint.yellow(view.problem)),
        ]
    )
    if view.arms:
        lines += ["", *draw([_arm_node(arm, view, paint) for arm in view.arms])]
    older = [other for other in view.releases[1:] if not other.final]
    for other in older:
        lines += ["", *header(_release_header(other, paint))]
    return lines + next_lines(view.next, paint)


def release_tree(view: EnvironmentView, paint: Paint) -> list[str]:
    """Return the releases under way in an environment, each in a few lines, and its versions."""
    lines = []
    for release in view.under_way:
        step = _step_text(release)
        lines.append(f"{paint.icon(release.state)} {paint.bold(release.id)} {release.version}  {release.state}  {step}")
        failed = paint.red(f"{release.failed_requests} failed") if release.failed_requests else "0 failed"
        lines.append(f"  {counted(release.requests, 'request')}, {failed}")
        lines += [f"  waits for {release.waits_for.removeprefix('waits for ')}"] if release.waits_for else []
    return [line.rstrip() for line in lines] + draw([_arm_node(arm, view, paint) for arm in view.arms])


def _release_header(release: ReleaseView, paint: Paint) -> list[tuple[str, str]]:
    actual = "unknown" if release.actual_weight is None else format_weight(release.actual_weight)
    verdict = release.verdict
    return [
        ("Release", f"{release.id}  {paint.state(release.state)}"),
        ("Version", release.version),
        ("Strategy", release.strategy),
        ("Step", _step_text(release)),
        ("Set weight", "" if release.final else format_weight(release.set_weight)),
        ("Actual weight", "" if release.final else actual),
        ("Requests", f"{release.requests}, {release.failed_requests} failed"),
        ("Harm", "; ".join(harm_words(release.harm)) if release.harm and release.previous else ""),
        ("Verdict", f"{paint.icon(verdict.kind)} {verdict.kind}: {verdict.why}" if verdict else ""),
        ("Waits for", release.waits_for),
        ("Earliest", clock(release.earliest) if release.earliest else ""),
        ("Reason", release.reason),
        ("Note", release.note if release.note not in release.reason else ""),
        ("Duration", format_duration(release.duration) if release.duration is not None else ""),
    ]


def _step_text(release: ReleaseView) -> str:
    current = next((step.text for step in release.steps if step.state == "current"), "")
    return f"{release.progress}  {current}".rstrip() if release.progress else ""


def _arm_node(arm: ArmView, view: EnvironmentView, paint: Paint) -> Node:
    replicas = arm.replicas
    actual = "?" if arm.actual_weight is None else format_weight(arm.actual_weight)
    weight = (
        format_weight(arm.set_weight)
        if actual == format_weight(arm.set_weight)
        else f"{arm.set_weight / 100:g}% (actual {actual})"
    )
    info = f"{weight}  {arm.role}"
    if arm.requests:
        failed = f", {arm.failed_requests} failed"
        info += f"  {counted(arm.requests, 'request')}" + (paint.red(failed) if arm.failed_requests else "")
    below = [
        Node(f"{paint.icon(arm.state)} replicas", f"{replicas.ready}/{replicas.desired} ready{_replica_notes(arm)}")
    ]
    below += [Node(f"→ {route.text}") for route in view.routes if route.version == arm.version]
    return Node(f"{paint.icon(arm.state)} {arm.version}", info, below)


def _replica_notes(arm: ArmView) -> str:
    notes = [counted(arm.replicas.restarts, "restart") if arm.replicas.restarts else "", arm.replicas.message]
    return "".join(f"  {note}" for note in notes if note)


def plan_tree(view: PlanView, paint: Paint) -> list[str]:
    """Return a plan: what would run, in which order, at which gates, and what the deploys would do."""
    lines = header(
        [
            ("Pipeline", paint.bold(view.name)),
            ("File", view.file),
            ("Commit", view.commit[:12]),
            ("Plan", view.digest[:12]),
            ("Parameters", ", ".join(f"{name}={value}" for name, value in view.parameters.items())),
            ("Secrets", ", ".join(view.secrets)),
            ("Environments", ", ".join(f"{one.name} ({one.target})" for one in view.environments)),
        ]
    )
    lines += ["", *draw([_planned_node(job, paint) for job in view.jobs]), "", f"Plan: {summary(view)}."]
    return lines


def _planned_node(job: JobOutline, paint: Paint) -> Node:
    info = [f"wave {job.wave}"]
    if job.depends_on:
        info.append(f"after {', '.join(job.depends_on)}")
    if job.concurrency:
        info.append(f"in turn with others of `{job.concurrency}`")
    below = []
    if job.gate is not None:
        who = f" of {', '.join(job.gate.approvers)}" if job.gate.approvers else ""
        count = f"{job.gate.required} people{who}" if job.gate.required > 1 else f"a person{who}"
        below.append(Node(f"{paint.icon('waiting_approval')} asks {count}", job.gate.message))
    if job.when:
        below.append(Node(f"when {job.when}"))
    below += [_planned_step(step, paint) for step in job.steps]
    return Node(paint.bold(job.name), "  ".join(info), below)


def _planned_step(step: StepOutline, paint: Paint) -> Node:
    when = f"when {step.when}" if step.when else ""
    run_on = {"failure": "on failure: ", "always": "always: "}.get(step.run_on, "")
    icon = paint.icon("waiting_approval" if step.kind == "approve" else "pending")
    node = Node(f"{icon} {run_on}{_first_line(step.name)}", when)
    deploy = step.deploy
    if deploy is not None:
        what = deploy.version or deploy.artifact
        replicas = f", {counted(deploy.replicas, 'replica')}" if deploy.replicas else ""
        node.below.append(Node(f"{deploy.strategy}: {what} to {deploy.environment}{replicas}"))
        node.below += [Node(f"{paint.icon('waiting_approval')} starts {words}") for words in deploy.gates]
        node.below += [Node(words) for words in deploy.steps]
        node.below += [Node(f"back if {words}") for words in deploy.checks]
        node.below += [Node(words) for words in deploy.judging]
    node.below += [Node(f"fails if {words}") for words in step.checks]
    return node
