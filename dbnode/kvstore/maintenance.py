"""What a store does about its log while it serves: hints for sealed segments, compaction, verification.

One thread; `kvstore.store` says how it gets on with the others. Every step may be cut short by a crash:
1. the output is written beside the log (`.tmp`) and synced; the sources are as they were;
2. the horizon is synced: from here on nothing below it is promised, though all is still there;
3. the output is renamed over its first source, the directory synced: it stands for all of them. A source that is found
   behind it at a start is left over, and removed;
4. places in the index are moved, the other sources removed, the output's hint written. Files of sources may have got
   another name in step 3: new segments are written into them, once nobody reads the old ones (`kvstore.spares`).
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from math import ceil
from pathlib import Path

import structlog

from kvcommon.versions import pack_version
from kvstore.applier import Applier
from kvstore.batch import HEADER_BYTES as BATCH_HEADER_BYTES
from kvstore.batch import MAX_INDEX, BatchHeader, check_records
from kvstore.errors import CorruptionError, FormatVersionError
from kvstore.garbage import Weight, choose
from kvstore.hint import Hint, HintBuilder, hint_path, read_hint, write_hint
from kvstore.home import Home
from kvstore.horizon import Horizon
from kvstore.index.base import LENGTH_BITS, LENGTH_MASK, MAX_OFFSET, SEGMENT_SHIFT
from kvstore.log import Log
from kvstore.noted import Candidates, find_candidates
from kvstore.options import StoreOptions
from kvstore.rewrite import Rewriter
from kvstore.segment import Segment
from kvstore.sieve import Kept, Sieve

SAMPLES = 16  # places at which a large segment is looked at to estimate its garbage
_SAMPLED = 1 << 20  # bytes above which a segment is large
_SLICE = 64 << 10  # bytes between two pauses: some tenths of a millisecond; of shorter ones the pauses cost too much
_SKIPPED = 4 << 10  # bytes that count for a stretch of which only single records are read, if any
_PICKED = 1 << 10  # bytes that count for each of these, beside its own
_SPARSE = 4 << 10  # one record that may count in so many bytes costs as much by itself as all of them together
_PAUSE = 1e-4  # seconds at least: whoever serves gets Python's lock then
_LATE = 0.01  # seconds of pauses that took too long, or of work, that are made up for
_MOVES = 1024  # keys whose places are moved at once, while commits wait

log = structlog.get_logger()


class HaltedError(Exception):
    """The store closes or is wiped; what was begun is thrown away."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What was done since the store was opened, and how far what is under way has come. Sizes in bytes."""

    compactions: int = 0
    reclaimed_bytes: int = 0
    hints: int = 0
    verified_bytes: int = 0
    source_bytes: int = 0
    """Of the compaction under way; 0: none."""
    read_bytes: int = 0
    """How far in `source_bytes` it has come: read, or found not to count."""
    waiting: int = 0
    """Segments that want a hint or compaction."""


class Pace:
    """Limits bytes per second (0: none) for each segment that waits, and ends the work when the store is halted.

    So work keeps up with whatever is written: what waits grows until as much is done as comes.
    """

    def __init__(self, rate: int, halt: threading.Event, clock: Callable[[], float] = time.monotonic) -> None:
        self.waiting = 1
        self._rate, self._halt, self._clock = rate, halt, clock
        self._bytes = 0
        self._due = 0.0

    def spend(self, count: int) -> None:
        """So many bytes were worked through. Raises HaltedError."""
        self._bytes += count
        if self._bytes < _SLICE:
            return
        pause = 0.0
        if self._rate:
            now = self._clock()
            self._due = max(self._due, now - _LATE) + self._bytes / (self._rate * self.waiting)
            pause = max(self._due - now, _PAUSE)
        self._bytes = 0
        if self._halt.wait(pause):
            raise HaltedError


class Maintenance:
    """For one worker thread.

    `settle` gives an index up to which all is committed and on the disk, `newest_version` the log's highest version.
    """

    def __init__(
        self,
        home: Home,
        applier: Applier,
        options: StoreOptions,
        *,
        log: Log,
        io: threading.Lock,
        halt: threading.Event,
        settle: Callable[[], int],
        newest_version: Callable[[], int],
        hinted: Sequence[int] = (),
    ) -> None:
        self.progress = Progress()
        self.purge_to = 0
        """Every replica has its log durably up to here; set from outside."""
        self.purges = 0
        """Counts outputs that lack deletes; -1 while one takes its sources' place."""
        self._home, self._log, self._applier, self._options = home, log, applier, options
        self._io, self._settle, self._newest_version = io, settle, newest_version
        self._pace = Pace(options.compaction_bytes_per_second, halt)
        self._hinted = set(hinted)
        self._weights: dict[int, Weight] = {}
        self._cleaned = False
        self._verified_to = 0

    def step(self) -> bool:
        """Do the next piece of work; whether there was any. Raises HaltedError, CorruptionError, OSError."""
        self._home.spares.trim()
        sealed = self._sealed()
        if self._options.compaction and self._survey_is_due(sealed):
            self._survey(sealed)
        waiting = sum(map(self._waits, sealed))
        self._pace.waiting = max(1, waiting)
        self.progress = replace(self.progress, waiting=waiting)
        for segment in sealed:
            if segment.number not in self._hinted and not self._goes(segment):
                return self._has_room(segment.size) and self._write_hint(segment)
        return bool(sealed) and self._options.compaction and self._compact_best(sealed)

    def _sealed(self) -> tuple[Segment, ...]:
        """The segments that never change again: full, and committed as a whole."""
        applied = self._applier.applied
        return tuple(s for s, later in pairwise(self._log.segments) if later.first - 1 <= applied)

    def _sift(
        self, segment: Segment, sieve: Sieve, candidates: Candidates | None, samples: int | None = None
    ) -> Iterator[tuple[BatchHeader, list[Kept], int]]:
        """A segment's batches, what counts of them, verified, and versions of which the highest is the segment's.

        At the pace that is set; of so many `samples` at most, or all of it. If the `candidates` are known, only these are looked
        at, and where they are few nothing else is read: a stretch comes as one batch then.
        """
        stretches = segment.stretches()
        for i in range(0, len(stretches), ceil(len(stretches) / samples) if samples else 1):
            first, start, end = stretches[i]
            wanted = candidates.within(start, end, sieve.remembers) if candidates is not None else []
            if candidates is None or len(wanted) * _SPARSE > end - start:
                yield from self._walk(segment, sieve, start, end)
                continue
            last = stretches[i + 1].first - 1 if i + 1 < len(stretches) else candidates.note.last
            header = BatchHeader(candidates.note.epoch, first, last, len(wanted), first - 1, end - start)
            records = [segment.record(at) for at in wanted]
            kept = [sieve.pick(*found, _place(segment, at)) for found, at in zip(records, wanted, strict=True)]
            yield header, [one for one in kept if one is not None], candidates.note.highest
            self._pace.spend(_SKIPPED + sum(len(data) + _PICKED for _, data in records))

    def _walk(
        self, segment: Segment, sieve: Sieve, start: int, end: int
    ) -> Iterator[tuple[BatchHeader, list[Kept], int]]:
        for header, offset, data in segment.batches_between(start, end):
            kept, highest = sieve.sift(header, data, _place(segment, offset), file=str(segment.path), base=offset)
            yield header, kept, highest
            self._pace.spend(header.length)

    def _candidates(self, segments: Sequence[Segment]) -> Mapping[int, Candidates]:
        """By segment number, as far as they were noted and it is worth the while."""
        notes = self._applier.notes
        return find_candidates(
            {s.number: note for s in segments if (note := notes.of(s.number, s.size))}, self._applier.index
        )

    # Hints

    def _has_room(self, size: int) -> bool:
        """Whether a file of this size can be written and leaves enough for the log itself."""
        free, reserve = self._home.files.free_bytes(self._home.path), self._options.compaction_reserve_bytes
        if free < size + reserve:
            log.warning(
                "no room to compact", directory=str(self._home.path), free_bytes=free, needed_bytes=size + reserve
            )
        return free >= size + reserve

    def _write_hint(self, segment: Segment) -> bool:
        hint = HintBuilder()
        candidates = self._candidates([segment]).get(segment.number)
        for header, kept, highest in self._sift(segment, self._sieve(), candidates):
            hint.batch(header, highest)
            for record in kept:
                hint.record(record, record.offset)
        write_hint(self._home.files, segment.path, hint.build(segment, self._settle()))
        self._hinted.add(segment.number)
        self.progress = replace(self.progress, hints=self.progress.hints + 1)
        return True

    def _sieve(self, *, clean_to: int = 0, deletes: dict[bytes, int] | None = None) -> Sieve:
        """`clean_to`: what deletes up to here delete is gone from all segments before those in question."""
        applier = self._applier
        purge_before = self._newest_version() - pack_version(self._options.tombstone_ms, 0, 0)
        return Sieve(
            applier.index.get,
            applier.sessions.remembers,
            deletes or {},
            purge_to=self.purge_to,
            purge_before=purge_before,
            clean_to=clean_to,
        )

    # Choosing

    def _compact_best(self, sealed: Sequence[Segment]) -> bool:
        options = self._options
        run = choose(
            [self._weights[s.number] for s in sealed if s.number in self._weights],  # the newest may be unknown yet
            segment_bytes=options.segment_bytes,
            garbage=options.compaction_garbage,
        )
        if run is not None:
            return self._compact(sealed, run)
        cleaned, self._cleaned = self._cleaned, False
        if cleaned:  # deletes that waited for a segment before them may go now: look again
            self._weights.clear()
        return cleaned

    def _survey_is_due(self, sealed: Sequence[Segment]) -> bool:
        """Once a twentieth of the segments is new: garbage elsewhere can't have grown by more than what was written."""
        new = sum(1 for s in sealed if s.number not in self._weights)
        return new > len(sealed) // 20

    def _survey(self, sealed: Sequence[Segment]) -> None:
        lasts = [*(s.first - 1 for s in sealed[1:]), self._applier.applied]
        candidates = self._candidates(sealed)
        self._weights = {
            s.number: self._weigh(s, _clean_before(sealed, i), last, candidates.get(s.number))
            for i, (s, last) in enumerate(zip(sealed, lasts, strict=True))
        }

    def _waits(self, segment: Segment) -> bool:
        """Whether there is something to be done about a segment."""
        return segment.number not in self._hinted or self._is_garbage(self._weights.get(segment.number))

    def _goes(self, segment: Segment) -> bool:
        """Whether compaction takes a segment anyway, and gives its output a hint; with deletes its own says which are superseded."""
        weight = self._weights.get(segment.number)
        return weight is not None and not weight.deletes and self._is_garbage(weight)

    def _is_garbage(self, weight: Weight | None) -> bool:
        return weight is not None and weight.size - weight.live >= self._options.compaction_garbage * weight.size

    def _weigh(self, segment: Segment, clean_to: int, last: int, candidates: Candidates | None) -> Weight:
        """How much of a segment counts, from a look at all of it if it is small, at some stretches if it isn't."""
        sieve = self._sieve(clean_to=clean_to)
        size = live = 0
        samples = SAMPLES if segment.size > _SAMPLED else None
        for header, kept, _ in self._sift(segment, sieve, candidates, samples):
            size += header.length
            live += sum(len(k.data) for k in kept) + (BATCH_HEADER_BYTES if segment.clean_to else 0)
        size = max(size, 1)
        return Weight(
            segment.size,
            segment.size * live // size,
            blocked=segment.size * sieve.blocked // size,
            last=last,
            clean_to=segment.clean_to,
            deletes=sieve.met_deletes,
        )

    # Compacting

    def _compact(self, sealed: Sequence[Segment], run: slice) -> bool:
        sources = sealed[run]
        if not self._has_room(min(sum(s.size for s in sources), MAX_OFFSET)):
            return False
        self.progress = replace(self.progress, source_bytes=sum(s.size for s in sources), read_bytes=0)
        sieve = self._sieve(clean_to=_clean_before(sealed, run.start), deletes=self._newest_deletes(sources))
        output = self._begin(sources[0])
        try:
            taken = self._rewrite(sources, sieve, output)
            output.finish()
            as_of = self._settle()
            self._home.save_horizon(Horizon(as_of, sieve.purged_to))
        except Exception:
            output.segment.file.close()
            with contextlib.suppress(OSError):
                self._home.files.remove(_temporary(output.segment))
            raise
        finally:
            self.progress = replace(self.progress, source_bytes=0, read_bytes=0)
        purges, self.purges = self.purges, -1 if sieve.purged_to else self.purges
        try:
            self._swap(taken, output)
        finally:
            self.purges = purges + (sieve.purged_to > 0)
        self._settle_in(taken, output, as_of, purged_to=sieve.purged_to)
        return True

    def _begin(self, first: Segment) -> Rewriter:
        """An output beside the log. It is clean to what is applied now; more may be by the time it is written."""
        files = self._home.files
        segment = Segment(
            self._log.new_number(), first.first, first.path, first.file, 0, clean_to=self._applier.applied
        )
        path = _temporary(segment)
        with contextlib.suppress(FileNotFoundError):
            files.remove(path)
        segment.file = files.open(path, create=True)
        return Rewriter(segment)

    def _rewrite(self, sources: Sequence[Segment], sieve: Sieve, output: Rewriter) -> Sequence[Segment]:
        """Write what counts; gives the sources that there was room for."""
        read, candidates = 0, self._candidates(sources)
        for i, source in enumerate(sources):
            if i and output.segment.size + source.size > MAX_OFFSET:
                return sources[:i]
            for header, kept, highest in self._sift(source, sieve, candidates.get(source.number)):
                output.add(header, kept, highest)
                read += header.length
                if read - self.progress.read_bytes >= _SLICE:
                    self.progress = replace(self.progress, read_bytes=read)
        return sources

    def _newest_deletes(self, sources: Sequence[Segment]) -> dict[bytes, int]:
        """The place of the newest delete of each key that is deleted in the sources, by their hints."""
        newest: dict[bytes, int] = {}
        for source in sources:
            hint = self._hint_of(source)
            if hint is not None and not all(p & LENGTH_MASK for p in hint.places):
                base = source.number << SEGMENT_SHIFT
                newest |= {k: base + p for k, p in zip(hint.keys(), hint.places, strict=True) if not p & LENGTH_MASK}
        return newest

    def _hint_of(self, segment: Segment) -> Hint | None:
        try:
            hint = read_hint(self._home.files, segment.path)
        except (CorruptionError, FormatVersionError):
            return None
        return hint if hint is not None and hint.is_of(segment) else None

    def _swap(self, sources: Sequence[Segment], output: Rewriter) -> None:
        """Have the output stand for its sources, whose files may be kept."""
        files, segment = self._home.files, output.segment
        with self._io:
            with contextlib.suppress(FileNotFoundError):
                files.remove(hint_path(segment.path))
            self._home.spares.keep(sources)
            files.rename(_temporary(segment), segment.path)
            files.sync_directory(self._home.path)
            self._log.replace(sources, segment)

    def _settle_in(self, sources: Sequence[Segment], output: Rewriter, as_of: int, *, purged_to: int) -> None:
        """Have everything found in the output, and let go of the sources."""
        files, segment = self._home.files, output.segment
        hint = output.hint.build(segment, as_of)
        self._move(hint, segment.number, frozenset(s.number for s in sources))
        self._log.retire(sources)
        for source in sources:
            self._applier.notes.forget(source.number)
        for source in sources[1:]:
            for path in (source.path, hint_path(source.path)):
                with contextlib.suppress(FileNotFoundError):
                    files.remove(path)
        write_hint(files, segment.path, hint)
        self._hinted.add(segment.number)
        blocked = sum(self._weights[s.number].blocked for s in sources)
        self._cleaned = any(w.blocked for w in self._weights.values())
        self._weights[segment.number] = Weight(segment.size, segment.size, blocked, hint.last, segment.clean_to)
        before = sum(s.size for s in sources)
        self.progress = replace(
            self.progress,
            compactions=self.progress.compactions + 1,
            reclaimed_bytes=self.progress.reclaimed_bytes + before - segment.size,
        )
        log.info(
            "log compacted",
            directory=str(self._home.path),
            first=hint.first,
            last=hint.last,
            segments=len(sources),
            bytes_before=before,
            bytes_after=segment.size,
            purged_to=purged_to,
        )

    def _move(self, hint: Hint, number: int, sources: frozenset[int]) -> None:
        base = number << SEGMENT_SHIFT
        moves = ((k, base + p) for k, p in zip(hint.keys(), hint.places, strict=True) if p & LENGTH_MASK)
        while some := list(islice(moves, _MOVES)):
            self._applier.index.move(some, sources)
            self._pace.spend(_SLICE)

    # Verifying

    def verify(self) -> int:
        """Read the next sealed segment in turn and check every checksum; gives its size, 0 when there is none.

        Raises HaltedError, CorruptionError, OSError.
        """
        self._pace.waiting = 1
        sealed = self._sealed()
        segment = next((s for s in sealed if s.first > self._verified_to), sealed[0] if sealed else None)
        if segment is None:
            return 0
        for header, offset, data in segment.batches(segment.first):
            check_records(data, header, file=str(segment.path), base=offset)
            self._pace.spend(header.length)
        self._verified_to = segment.first
        self.progress = replace(self.progress, verified_bytes=self.progress.verified_bytes + segment.size)
        return segment.size


def _place(segment: Segment, offset: int) -> int:
    return segment.number << SEGMENT_SHIFT | offset << LENGTH_BITS


def _temporary(segment: Segment) -> Path:
    return segment.path.with_name(segment.path.name + ".tmp")


def _clean_before(segments: Sequence[Segment], place: int) -> int:
    """The index up to which no segment before a place holds what deletes are needed for."""
    return min((s.clean_to for s in segments[:place]), default=MAX_INDEX)
