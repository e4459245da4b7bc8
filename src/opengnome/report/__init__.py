"""What a campaign did and found: a self-contained HTML page, a terminal status, a Markdown table."""

from opengnome.report.page import write_report
from opengnome.report.text import rounds_markdown, status_lines

__all__ = ["rounds_markdown", "status_lines", "write_report"]
