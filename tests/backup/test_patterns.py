"""Patterns that say which paths are meant."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup.patterns import PathPatterns, read_patterns
from cloudconnect.errors import UsageError


class MatchTests(SynchronousTestCase):
    """Which paths a pattern means."""

    def check(self, pattern: bytes, meant: list[bytes], not_meant: list[bytes]) -> None:
        patterns = PathPatterns([pattern])
        for path in meant:
            folder = path.endswith(b"/")
            self.assertTrue(patterns.means(path.rstrip(b"/"), folder), (pattern, path))
        for path in not_meant:
            folder = path.endswith(b"/")
            self.assertFalse(patterns.means(path.rstrip(b"/"), folder), (pattern, path))

    def test_name(self) -> None:
        """A pattern without a slash is compared with the whole last name, in any folder."""
        self.check(
            b"*.o",
            [b"/a.o", b"/x/y/.o", b"/x/b.o/"],
            [b"/a.oo", b"/a.o/b", b"/ao", b"/x.o.c"],
        )

    def test_anchored(self) -> None:
        """A pattern with a slash in front is compared with the whole path."""
        self.check(
            b"/home/*/.cache",
            [b"/home/ann/.cache", b"/home/.x/.cache/"],
            [b"/x/home/ann/.cache", b"/home/.cache", b"/home/a/b/.cache", b"/home/a/.cache/x"],
        )

    def test_single_anchored_name(self) -> None:
        """A slash in front anchors a single name too."""
        self.check(b"/proc", [b"/proc/"], [b"/x/proc/", b"/proc/1"])

    def test_inner_slash_is_not_anchored(self) -> None:
        """A pattern with slashes inside only is compared with the last names, whole ones."""
        self.check(
            b".cache/thumb*",
            [b"/.cache/thumbs", b"/home/ann/.cache/thumbnails/"],
            [b"/my.cache/thumbs", b"/.cache/x/thumbs", b"/.cache/thumbs/x"],
        )

    def test_folders_only(self) -> None:
        """A slash at the end means folders only."""
        self.check(b"build/", [b"/a/build/"], [b"/a/build", b"/a/builds/"])

    def test_two_stars_between(self) -> None:
        """Two stars between slashes are any number of folders, also none."""
        self.check(
            b"/a/**/b",
            [b"/a/b", b"/a/x/b", b"/a/x/y/b"],
            [b"/a/xb", b"/ab", b"/a/b/c", b"/x/a/b"],
        )

    def test_two_stars_at_the_end(self) -> None:
        """Two stars at the end are everything below, but not the folder itself."""
        self.check(b"/a/**", [b"/a/b", b"/a/b/c"], [b"/a", b"/ab"])

    def test_two_stars_in_front(self) -> None:
        """Two stars in front are any folder, the root too."""
        self.check(b"**/a", [b"/a", b"/x/y/a"], [b"/xa", b"/a/x"])

    def test_star_and_question_mark_stay_in_a_name(self) -> None:
        """Neither a star nor a question mark nor a set matches a slash."""
        self.check(b"/a*b", [b"/ab", b"/axxb"], [b"/a/b"])
        self.check(b"/a?b", [b"/axb"], [b"/a/b", b"/ab", b"/axxb"])
        self.check(b"/a[.-z]b", [b"/a.b", b"/azb"], [b"/a/b"])
        self.check(b"/a[!x]b", [b"/ayb"], [b"/a/b", b"/axb"])

    def test_sets(self) -> None:
        """Sets know ranges, negation with ! or ^, and a first or escaped closing bracket."""
        self.check(b"[a-c]x", [b"/ax", b"/cx"], [b"/dx", b"/-x"])
        self.check(b"[^a-c]x", [b"/dx"], [b"/ax"])
        self.check(b"[]a]", [b"/]", b"/a"], [b"/b"])
        self.check(b"[\\]a]", [b"/]", b"/a"], [b"/\\"])
        self.check(b"[a-]", [b"/a", b"/-"], [b"/b"])

    def test_escapes(self) -> None:
        """A backslash takes the meaning from the next character."""
        self.check(b"\\*", [b"/*"], [b"/a"])
        self.check(b"\\!x", [b"/!x"], [b"/x"])
        self.check(b"a\\[b]", [b"/a[b]"], [b"/ab"])

    def test_regular_expression_characters(self) -> None:
        """Characters that mean something to regular expressions mean themselves."""
        self.check(b"a.b+(c)|d$", [b"/a.b+(c)|d$"], [b"/axb+(c)|d$", b"/d$"])

    def test_odd_names(self) -> None:
        """Names may hold newlines and bytes that are not UTF-8; one such byte is one character."""
        self.check(b"a*b", [b"/a\nb", b"/a\xffb"], [])
        self.check(b"a?b", [b"/a\nb", b"/a\xffb", "/aéb".encode()], [b"/a\xff\xffb"])
        self.check(b"\xff", [b"/\xff"], [b"/\xfe"])

    def test_name_ends_at_its_end(self) -> None:
        """A newline at the end of a name is part of it."""
        self.check(b"a", [b"/a"], [b"/a\n"])

    def test_last_match_decides(self) -> None:
        """An exclamation mark takes back; the last pattern that matches decides."""
        patterns = PathPatterns([b"*.log", b"!keep.log", b"/x/keep.log"])
        self.assertTrue(patterns.means(b"/a.log", False))
        self.assertFalse(patterns.means(b"/keep.log", False))
        self.assertTrue(patterns.means(b"/x/keep.log", False))

    def test_no_patterns(self) -> None:
        """Without patterns nothing is meant, and the list is false."""
        self.assertFalse(PathPatterns([]))
        self.assertFalse(PathPatterns([]).means(b"/a", True))

    @given(st.text(alphabet="ab*/", min_size=1, max_size=12), st.text(alphabet="ab/", max_size=8))
    @settings(max_examples=300, deadline=None)
    def test_like_a_plain_model(self, pattern: str, rest: str) -> None:
        """The translation agrees with a plain recursive matcher, stars, slashes and all."""
        parts = [part for part in pattern.split("/") if part]
        names = [name for name in rest.split("/") if name]
        if not parts or not names:
            return
        path = "/" + "/".join(names)
        anchored = pattern.startswith("/")
        starts = [0] if anchored else range(len(names) + 1)
        expected = any(_model(parts, names[start:]) for start in starts)
        folder = True
        found = PathPatterns([pattern.encode()]).means(path.encode(), folder)
        self.assertEqual(found, expected, (pattern, path))

    def test_many_stars_are_not_slow(self) -> None:
        """A pattern of many stars against a long name is decided at all.

        With plain backtracking this test would not end.
        """
        pattern = PathPatterns([b"*a" * 60 + b"b"])
        self.assertFalse(pattern.means(b"/" + b"a" * 255, False))


def _model(parts: list[str], names: list[str]) -> bool:
    """The documented rules, as plainly as possible."""
    if not parts:
        return not names
    if parts[0] == "**":
        least = 1 if len(parts) == 1 else 0
        return any(_model(parts[1:], names[n:]) for n in range(least, len(names) + 1))
    return bool(names) and _glob(parts[0], names[0]) and _model(parts[1:], names[1:])


def _glob(pattern: str, name: str) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(_glob(pattern[1:], name[n:]) for n in range(len(name) + 1))
    return bool(name) and pattern[0] == name[0] and _glob(pattern[1:], name[1:])


class RefusalTests(SynchronousTestCase):
    """Patterns that cannot be understood are refused, not guessed at."""

    def test_refused(self) -> None:
        """Nothing, a lone mark, an open set, an empty range, a class, NUL and a trailing escape."""
        bad = [b"", b"/", b"!", b"!/", b"[a", b"[z-a]", b"[[:alpha:]]", b"a\0b", b"a\\", b"[a\\"]
        for pattern in bad:
            with self.assertRaises(UsageError, msg=repr(pattern)):
                PathPatterns([pattern])
        with self.assertRaises(UsageError):
            PathPatterns([b"a" * 9000])


class ReadTests(SynchronousTestCase):
    """Files of patterns."""

    def test_lines(self) -> None:
        """Comments, empty lines, line ends and trailing spaces are dropped."""
        data = b"\xef\xbb\xbf*.o\r\n\n# a comment\n\\#name\nspaced  \nkept\\ \n  \n  lead"
        self.assertEqual(
            read_patterns(data), [b"*.o", b"\\#name", b"spaced", b"kept\\ ", b"  lead"]
        )

    def test_escaped_trailing_space_matches(self) -> None:
        """A pattern that ends in an escaped space means a name that ends in one."""
        patterns = PathPatterns(read_patterns(b"kept\\ \n"))
        self.assertTrue(patterns.means(b"/kept ", False))
        self.assertFalse(patterns.means(b"/kept", False))
