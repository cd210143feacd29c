"""All settings of the process: one frozen value, read from environment variables and flags, and its checks."""

from inferd.daemon.settings.checks import AT_MOST, check_connection, check_worker, widest_host, worker_warnings
from inferd.daemon.settings.settings import DEFAULT_BROKER, LogFormat, LogLevel, Settings, settings_table
from inferd.daemon.settings.table import SettingInfo, SettingsError

__all__ = [
    "AT_MOST",
    "DEFAULT_BROKER",
    "LogFormat",
    "LogLevel",
    "SettingInfo",
    "Settings",
    "SettingsError",
    "check_connection",
    "check_worker",
    "settings_table",
    "widest_host",
    "worker_warnings",
]
