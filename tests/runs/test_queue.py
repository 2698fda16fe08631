import pytest

from opd_core.runs.queue import broker_url, celery_config


@pytest.mark.parametrize(
    ("redis_url", "expected"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("rediss://:pw@h:6379/1", "rediss://:pw@h:6379/1"),
        ("unix:///run/opd/s.sock?db=2", "redis+socket:///run/opd/s.sock?virtual_host=2"),
        ("unix:///s.sock", "redis+socket:///s.sock?virtual_host=0"),
        ("unix://:p%40w@/s.sock?db=0", "redis+socket://:p%40w@/s.sock?virtual_host=0"),
        ("unix:///s.sock?db=0&password=p%40w", "redis+socket://:p%40w@/s.sock?virtual_host=0"),
    ],
)
def test_broker_urls(redis_url, expected):
    assert broker_url(redis_url) == expected


def test_other_brokers_are_refused():
    with pytest.raises(ValueError, match="OPD_REDIS_URL"):
        broker_url("amqp://h")


def test_messages_carry_json_and_are_not_held():
    config = celery_config("redis://h", drain_s=7)
    assert config["accept_content"] == ["json"]
    assert config["task_acks_late"] is False
    assert config["worker_disable_prefetch"] is True
    assert config["worker_cancel_long_running_tasks_on_connection_loss"] is False
    assert config["worker_soft_shutdown_timeout"] == 7
