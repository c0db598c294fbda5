"""Options and results."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup import options
from cloudconnect.backup.options import Reports, RestoreOptions, read_path_list
from cloudconnect.errors import UsageError


class OptionsTests(SynchronousTestCase):
    """The small things beside the big ones."""

    def test_path_list(self) -> None:
        """Paths end with newlines, or with NUL where there is one."""
        self.assertEqual(read_path_list(b"/a\n\n /b \n#c\n/d"), [b"/a", b" /b ", b"#c", b"/d"])
        self.assertEqual(read_path_list(b"/a\nb\0/c\0\0"), [b"/a\nb", b"/c"])
        self.assertEqual(read_path_list(b""), [])

    def test_reports_are_bounded(self) -> None:
        """All reports are counted, so many are kept."""
        self.patch(options, "LISTED_MAX", 3)
        reports = Reports()
        self.assertFalse(reports)
        for number in range(10):
            reports.add(b"/%d" % number, "gone")
        self.assertTrue(reports)
        self.assertEqual((reports.count, len(reports.listed)), (10, 3))

    def test_strip_components(self) -> None:
        """Less than nothing cannot be stripped."""
        with self.assertRaises(UsageError):
            RestoreOptions(target=b"/t", strip_components=-1)
