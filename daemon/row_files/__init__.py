"""Rows in files and on standard input: CSV, NDJSON and Parquet, read the same way by every command."""

from inferd.daemon.row_files.layout import Kind, Layout
from inferd.daemon.row_files.options import FORMATS, FileOptions, Format, format_of
from inferd.daemon.row_files.reader import open_row_file
from inferd.daemon.row_files.source import GZIP

__all__ = ["FORMATS", "GZIP", "FileOptions", "Format", "Kind", "Layout", "format_of", "open_row_file"]
