"""What monitoring sees: counted from events, read back with the parser of prometheus_client."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from support.spool import FAILURE, Spool, result

from whisperd.core import events
from whisperd.core.events import DeviceVitals, Vitals, WorkerVitals
from whisperd.core.job import Failure
from whisperd.listeners.metrics import CODES_MAX, Metrics

REPOSITORY = Path(__file__).parents[3]
ALERTS = REPOSITORY / "config/alerts.yaml"
DASHBOARD = REPOSITORY / "config/grafana-dashboard.json"
SPOOL = "/var/spool/whisperd"
NOTHING = Vitals(0, 0, 0, 0, 0, 1 << 30, 1 << 40, None, ())
ALWAYS_THERE = {"up", "node_textfile_mtime_seconds"}


@pytest.fixture
def metrics():
    return Metrics(SPOOL, started_at=1.0)


@pytest.fixture
def job(tmp_path):
    spool = Spool(tmp_path / "spool")
    return spool.store.start(spool.take("a.wav"))


def samples(metrics):
    """Name and labels (without the spool's) to value."""
    found = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("spool") == SPOOL
            found[sample.name, *sorted(labels.values())] = sample.value
    return found


def test_the_ends_of_jobs_are_counted_by_result(metrics, job):
    """What was skipped adds no audio, what failed is counted by its code."""
    metrics.heard(events.JobFinished(job, result(quality={"dropped_seconds": 2.5})))
    metrics.heard(events.JobFinished(job, result(duplicate_of="b.wav")))
    metrics.heard(events.JobFailed(job, FAILURE))
    metrics.heard(events.JobRetried(job, FAILURE, 1.0, counted=True))
    found = samples(metrics)

    assert found["whisperd_jobs_ended_total", "completed"] == 1
    assert found["whisperd_jobs_ended_total", "skipped"] == 1
    assert found["whisperd_jobs_ended_total", "no_audio"] == 1
    assert found["whisperd_retries_total", "no_audio"] == 1
    assert found["whisperd_audio_seconds_total",] == 12.5
    assert found["whisperd_processing_seconds_total",] == 2.5
    assert found["whisperd_vad_dropped_seconds_total",] == 2.5
    assert found["whisperd_speed_ratio_sum",] == 5.0
    assert found["whisperd_speed_ratio_count",] == 1


def test_gaps_are_counted_by_reason(metrics, job):
    """A reason that did not occur is 0, so that its rate exists."""
    gaps = [{"from": 1.0, "to": 3.0, "why": "loop"}, {"from": 5.0, "to": 5.5, "why": "loop"}]
    metrics.heard(events.JobFinished(job, result(quality={"gaps": gaps})))

    assert samples(metrics)["whisperd_gap_seconds_total", "loop"] == 2.5
    assert samples(metrics)["whisperd_gap_seconds_total", "silence"] == 0


def test_waiting_is_measured_once_for_each_job(metrics, job):
    """From first sight to claim, and from claim to the first try; a second try is no longer wait."""
    metrics.heard(events.JobClaimed(job, 4.0))
    started = job.evolve(claimed_at="2026-01-02T03:04:05.000Z", started_at="2026-01-02T03:05:05.500Z", attempts=1)
    metrics.heard(events.JobStarted(started, 1))
    metrics.heard(events.JobStarted(started.evolve(attempts=2), 1))
    found = samples(metrics)

    assert (found["whisperd_settle_wait_seconds_sum",], found["whisperd_settle_wait_seconds_count",]) == (4.0, 1)
    assert (found["whisperd_queue_wait_seconds_sum",], found["whisperd_queue_wait_seconds_count",]) == (60.5, 1)


def test_each_step_of_the_loop_is_measured(metrics):
    """Those within the aim of 50 ms can be told from the others."""
    metrics.heard(events.LoopTurned((0.001, 0.03, 0.2)))
    metrics.heard(events.LoopTurned((0.002,)))
    lines = metrics.text().decode().splitlines()
    (within,) = [line for line in lines if line.startswith("whisperd_loop_step_seconds_bucket") and 'le="0.05"' in line]

    assert within.endswith(" 3.0")
    assert samples(metrics)["whisperd_loop_step_seconds_count",] == 4


def test_what_the_daemon_suffers_is_counted(metrics):
    """Dead workers, a full disk, notices; a worker that was told to end is none."""
    metrics.heard(events.WorkerEnded(1, 1, "exited", expected=True, restart_seconds=None))
    metrics.heard(events.WorkerEnded(1, 1, "was killed", expected=False, restart_seconds=0.0))
    metrics.heard(events.ClaimsPaused("full", "make room"))
    metrics.heard(events.NotificationDelivered("hook", "on_completed", "1", "a.wav", 0.1, ""))
    metrics.heard(events.NotificationDelayed("webhook", "webhook-x", "1", "a.wav", "no", 1.0))
    metrics.heard(events.NotificationDropped("webhook", "webhook-x", "1", "a.wav", "no"))
    found = samples(metrics)

    assert found["whisperd_worker_restarts_total",] == 1
    assert found["whisperd_claims_paused",] == 1
    assert found["whisperd_notices_total", "hook", "told"] == 1
    assert found["whisperd_notices_total", "delayed", "webhook"] == 1
    assert found["whisperd_notices_total", "dropped", "webhook"] == 1
    metrics.heard(events.ClaimsResumed())
    assert samples(metrics)["whisperd_claims_paused",] == 0


def test_the_present_replaces_the_past(metrics):
    """A worker that has gone takes its memory along; workers of one device are added up."""
    workers = (WorkerVitals("cuda:0", 100, 5000), WorkerVitals("cuda:0", 20, 5000), WorkerVitals("cpu", 3, None))
    devices = (DeviceVitals("cuda:0", "GPU", 2, speed=12.5), DeviceVitals("cpu", "", 1, reason="no worker loads"))
    metrics.update(Vitals(1, 2, 3, 4, 5, 6, 7, 8.0, workers, devices=devices))
    found = samples(metrics)

    assert [found["whisperd_jobs", state] for state in ("arriving", "queued", "running", "ending")] == [1, 2, 3, 4]
    assert (found["whisperd_notices_waiting",], found["whisperd_disk_free_bytes",]) == (5, 6)
    assert (found["whisperd_disk_size_bytes",], found["whisperd_last_scan_time_seconds",]) == (7, 8)
    assert (found["whisperd_worker_memory_bytes", "cuda:0"], found["whisperd_workers", "cuda:0"]) == (120, 2)
    assert found["whisperd_device_memory_bytes", "cuda:0"] == 5000
    assert ("whisperd_device_memory_bytes", "cpu") not in found
    assert (found["whisperd_device_up", "cuda:0"], found["whisperd_device_up", "cpu"]) == (1, 0)
    assert found["whisperd_device_speed_ratio", "cuda:0"] == 12.5
    assert ("whisperd_device_speed_ratio", "cpu") not in found
    metrics.update(NOTHING)
    assert not [key for key in samples(metrics) if "cuda:0" in key]


def test_labels_stay_bounded(metrics, job):
    """However many error codes a broken worker makes up, and whatever files are called."""
    for number in range(10 * CODES_MAX):
        metrics.heard(events.JobFailed(job, Failure(f"code-{number}", "x", "")))
    ended = [key for key in samples(metrics) if key[0] == "whisperd_jobs_ended_total"]

    assert len(ended) == CODES_MAX + 1 + len(("completed", "skipped"))


@pytest.mark.parametrize("dropped", [[[1.0, 2.0]], {"en": 1.0}, None])
def test_figures_of_a_hostile_worker_do_no_harm(metrics, job, dropped):
    """The supervisor lives in the same process."""
    metrics.heard(events.JobFinished(job, result(quality={"dropped_seconds": dropped})))

    assert samples(metrics)["whisperd_jobs_ended_total", "completed"] == 1


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool (of Prometheus) is not installed")
class TestPromtool:
    def check(self, *arguments, given=None):
        return subprocess.run(["promtool", *arguments], input=given, capture_output=True, text=True, check=False)

    def test_it_is_content_with_the_names(self, metrics, job):
        """The linter for names, units and help texts has nothing to say."""
        metrics.heard(events.JobFinished(job, result()))
        ran = self.check("check", "metrics", given=metrics.text().decode())

        assert (ran.returncode, ran.stdout + ran.stderr) == (0, "")

    def test_the_rules_are_valid(self):
        """As Prometheus would load them."""
        ran = self.check("check", "rules", str(ALERTS))

        assert ran.returncode == 0, ran.stdout + ran.stderr

    @pytest.mark.parametrize(
        ("alert", "series", "at"),
        [
            ("WhisperdTakesNothing", {'whisperd_claims_paused{spool="/s"}': "1+0x60"}, "10m"),
            (
                "WhisperdJobsFail",
                {
                    'whisperd_jobs_ended_total{spool="/s", result="corrupt"}': "0+1x60",
                    'whisperd_jobs_ended_total{spool="/s", result="completed"}': "0+0x60",
                },
                "60m",
            ),
            (
                "WhisperdStuck",
                {
                    'whisperd_jobs{spool="/s", state="queued"}': "3+0x240",
                    'whisperd_jobs_ended_total{spool="/s", result="completed"}': "7+0x240",
                },
                "200m",
            ),
            ("WhisperdDoesNotLook", {'whisperd_last_scan_time_seconds{spool="/s"}': "0+0x60"}, "30m"),
        ],
    )
    def test_an_alert_comes_when_it_should(self, tmp_path, alert, series, at):
        """Promtool plays the figures, is told to expect no alert, and complains; without figures it does not."""
        expected = [{"eval_time": at, "alertname": alert, "exp_alerts": []}]
        outcomes = []
        for inputs in (series, {}):
            given = [{"series": name, "values": values} for name, values in inputs.items()]
            test = {"interval": "1m", "input_series": given, "alert_rule_test": expected}
            path = tmp_path / "rules.test.yaml"
            path.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "tests": [test]}))
            ran = self.check("test", "rules", str(path))
            outcomes.append((ran.returncode, f'alertname="{alert}"' in ran.stderr))

        assert outcomes == [(1, True), (0, False)]


def names(metrics):
    return {key[0] for key in samples(metrics)}


def test_alerts_and_dashboard_speak_of_metrics_that_exist(metrics, job):
    """A renamed metric must not leave an empty panel or an alert that never comes."""
    metrics.heard(events.JobRetried(job, FAILURE, 1.0, counted=True))
    metrics.heard(events.NotificationDelivered("hook", "on_completed", "1", "a.wav", 0.1, ""))
    metrics.update(
        Vitals(
            1,
            2,
            3,
            4,
            5,
            6,
            7,
            8.0,
            (WorkerVitals("cuda:0", 1, 2),),
            devices=(DeviceVitals("cuda:0", "", 1, speed=1.0),),
        )
    )
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    panels = json.loads(DASHBOARD.read_text())["panels"]
    expressions = [rule["expr"] for rule in rules] + [each["expr"] for panel in panels for each in panel["targets"]]
    spoken = {name for text in expressions for name in re.findall(r"\b(?:whisperd|node)_[a-z_]+(?::[a-z]+)?", text)}

    assert spoken - recorded - ALWAYS_THERE <= names(metrics)
    shown = {re.sub(r"_bucket$", "", name) for name in spoken}
    assert {re.sub(r"_(sum|count|bucket)$", "", name) for name in names(metrics)} <= shown
