"""The columns that every resolution has, as tuples, and the adding up of them. No queries here."""

from router.samples import BUCKETS
from router.telemetry.models import add_histogram, pack_histogram

SUMS = ("arrivals", "ok", "client_errors", "rejected", "unready", "timeouts", "failures")
MEANS = ("busy", "queued", "ready", "starting", "draining", "desired")
PEAKS = ("busy_peak", "queued_peak")
HISTOGRAMS = ("histogram", "queue_histogram", "service_histogram")
COLUMNS = ("series_id", "at", "seconds", *SUMS, *MEANS, *PEAKS, *HISTOGRAMS)
FIRST_SUM, FIRST_MEAN = 3, 3 + len(SUMS)
FIRST_PEAK = FIRST_MEAN + len(MEANS)
FIRST_HISTOGRAM = FIRST_PEAK + len(PEAKS)


class Bucket:
    """Adds up rows (tuples of `COLUMNS`) of one series, or of one service's versions."""

    __slots__ = ("histograms", "means", "peaks", "seconds", "sums")

    def __init__(self) -> None:
        self.seconds = 0
        self.sums = [0] * len(SUMS)
        self.means = [0.0] * len(MEANS)  # weighted by seconds until `values`
        self.peaks = [0] * len(PEAKS)
        self.histograms = [[0] * BUCKETS for _ in HISTOGRAMS]

    def add(self, row: tuple) -> None:
        seconds = row[2]
        self.seconds += seconds
        for index in range(len(SUMS)):
            self.sums[index] += row[FIRST_SUM + index]
        for index in range(len(MEANS)):
            self.means[index] += row[FIRST_MEAN + index] * seconds
        for index in range(len(PEAKS)):
            self.peaks[index] = max(self.peaks[index], row[FIRST_PEAK + index])
        for index, histogram in enumerate(self.histograms):
            if packed := row[FIRST_HISTOGRAM + index]:
                add_histogram(packed, histogram)

    def values(self, series: int, at: int) -> tuple:
        """A row of `COLUMNS` again."""
        means = (value / self.seconds for value in self.means)
        packed = map(pack_histogram, self.histograms)
        return (series, at, self.seconds, *self.sums, *means, *self.peaks, *packed)
