//! Numbers, times, counts and outcomes as people read them. Pure; used by all views.

use std::collections::BTreeMap;

use aot_proto::plural;
use aot_proto::v1::Outcome;
use time::{OffsetDateTime, UtcOffset};

/// `0.8 ms`, `3.2 s`, `41 s`, `12m05s`, `3h10m`.
pub(crate) fn seconds(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    let whole = seconds.round() as u64;
    if seconds < 0.00995 {
        format!("{:.1} ms", seconds * 1000.0)
    } else if seconds < 0.9995 {
        format!("{:.0} ms", seconds * 1000.0)
    } else if seconds < 9.95 {
        format!("{seconds:.1} s")
    } else if whole < 120 {
        format!("{whole} s")
    } else if whole < 3600 {
        format!("{}m{:02}s", whole / 60, whole % 60)
    } else {
        format!("{}h{:02}m", whole / 3600, whole / 60 % 60)
    }
}

/// `512 B`, `1.5 KiB`, `12.3 MiB`, `100 GiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let places = usize::from(value < 99.95);
    format!("{value:.places$} {}", UNITS[unit])
}

/// The time of day, `12:03:04`, `offset` away from UTC; `12:03:04Z` in UTC itself.
pub(crate) fn clock(unix_ms: u64, offset: UtcOffset) -> String {
    let stamp = stamp(unix_ms, offset);
    let zone = if offset.is_utc() { "Z" } else { "" };
    format!(
        "{:02}:{:02}:{:02}{zone}",
        stamp.hour(),
        stamp.minute(),
        stamp.second()
    )
}

/// `2026-12-01 12:03:04Z`.
pub(crate) fn day_and_clock(unix_ms: u64, offset: UtcOffset) -> String {
    format!(
        "{} {}",
        stamp(unix_ms, offset).date(),
        clock(unix_ms, offset)
    )
}

fn stamp(unix_ms: u64, offset: UtcOffset) -> OffsetDateTime {
    i64::try_from(unix_ms / 1000)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
        .to_offset(offset)
}

/// `4 ready, 1 failed`, the biggest first; nothing for an empty map.
pub(crate) fn counts_text<'a>(counts: impl IntoIterator<Item = (&'a str, u64)>) -> String {
    let mut merged: BTreeMap<&str, u64> = BTreeMap::new();
    for (word, count) in counts {
        *merged.entry(word).or_default() += count;
    }
    let mut pairs: Vec<_> = merged.into_iter().filter(|(_, count)| *count > 0).collect();
    pairs.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let words: Vec<String> = pairs
        .iter()
        .map(|(word, count)| format!("{count} {}", word.replace('_', " ")))
        .collect();
    words.join(", ")
}

/// `2 security groups, 1 address`: kinds of things, the most first; nothing for none.
pub(crate) fn count_things<'a>(kinds: impl IntoIterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for kind in kinds {
        *counts.entry(kind).or_default() += 1;
    }
    let mut pairs: Vec<_> = counts.into_iter().collect();
    pairs.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let words: Vec<String> = pairs
        .iter()
        .map(|(kind, count)| plural::count(*count, &kind.replace('-', " ")))
        .collect();
    words.join(", ")
}

/// The public value, or the private one; `None` when there is neither.
pub(crate) fn public_or_private<'a>(public: &'a str, private: &'a str) -> Option<&'a str> {
    [public, private].into_iter().find(|text| !text.is_empty())
}

/// How something ended that did not succeed: `failed`, `timed out`.
pub(super) fn outcome_text(outcome: i32) -> String {
    Outcome::name_of(outcome).replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_keep_two_figures() {
        for (given, want) in [
            (0.0008, "0.8 ms"),
            (0.25, "250 ms"),
            (3.21, "3.2 s"),
            (9.97, "10 s"),
            (41.2, "41 s"),
            (725.0, "12m05s"),
            (11_400.0, "3h10m"),
            (-1.0, "0.0 ms"),
        ] {
            assert_eq!(seconds(given), want, "{given}");
        }
    }

    #[test]
    fn bytes_keep_three_figures() {
        for (given, want) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (12_900_000, "12.3 MiB"),
            (100 << 30, "100 GiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(bytes(given), want, "{given}");
        }
    }

    #[test]
    fn the_clock_follows_the_offset() {
        let ms = 1_767_225_784_000; // 2026-01-01T00:03:04Z
        assert_eq!(clock(ms, UtcOffset::UTC), "00:03:04Z");
        assert_eq!(
            clock(ms, UtcOffset::from_hms(-5, 0, 0).expect("in range")),
            "19:03:04"
        );
    }

    #[test]
    fn counts_are_sorted_and_zeros_left_out() {
        assert_eq!(
            counts_text([("failed", 1), ("ready", 3), ("gone", 0), ("ready", 1)]),
            "4 ready, 1 failed"
        );
        assert_eq!(counts_text([("timed_out", 2)]), "2 timed out");
        assert_eq!(counts_text([]), "");
    }

    #[test]
    fn things_are_counted_as_people_do() {
        let kinds = [
            "rule",
            "address",
            "security-group",
            "rule",
            "address",
            "rule",
        ];
        assert_eq!(
            count_things(kinds),
            "3 rules, 2 addresses, 1 security group"
        );
        assert_eq!(count_things([]), "");
    }
}
