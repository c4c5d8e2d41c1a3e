//! Whether the clocks agree by which agents, the master and its records go. Pure.

use aot_model::key::InstanceKey;
use aot_proto::plural;
use aot_proto::v1::Finding;
use aot_store::{StoreClock, WallClock};

/// What is looked at.
const CLOCKS: &str = "clocks";

/// Clocks that are further apart than this are named: signatures and certificates go by them.
const CLOCKS_APART_MS: u64 = 5_000;

/// Most names in a line.
const MOST_NAMED: usize = 10;

/// How far the database's clock is from this host's, by the last sign of life that it took.
pub(super) fn of_store(clock: StoreClock) -> Finding {
    const DATABASE: &str = "database";
    #[expect(
        clippy::cast_precision_loss,
        reason = "it is shown with one digit behind the point"
    )]
    let seconds = clock.ahead_ms.unsigned_abs() as f64 / 1000.0;
    let side = if clock.ahead_ms > 0 {
        "ahead of"
    } else {
        "behind"
    };
    let apart = format!("this host's clock is {seconds:.1} s {side} the database's");
    let both = "have both set by a time server (timedatectl, chrony)";
    match clock.wall {
        WallClock::Well => Finding::ok(CLOCKS, DATABASE, "the database has the time of this host"),
        WallClock::Off => Finding::warn(CLOCKS, DATABASE, apart, both),
        WallClock::DatabaseFarOff => {
            let text = format!("{apart}, and no other master shows that this host's is wrong");
            Finding::warn(CLOCKS, DATABASE, text, both)
        }
        WallClock::Unsure => {
            let text = format!(
                "{apart}: this master does nothing until it is known which of the two is wrong"
            );
            Finding::fail(CLOCKS, DATABASE, text, both)
        }
        WallClock::FarOff => {
            let text = format!(
                "{apart}, which other masters have, too: this master does nothing meanwhile"
            );
            let hint = "have this host's set by a time server (timedatectl, chrony)";
            Finding::fail(CLOCKS, DATABASE, text, hint)
        }
    }
}

/// How far the machines' clocks are from this host's.
pub(super) fn of_machines(said: &[(InstanceKey, i64)]) -> Finding {
    let mut off: Vec<_> = said
        .iter()
        .filter(|(_, ahead_ms)| ahead_ms.unsigned_abs() > CLOCKS_APART_MS)
        .collect();
    if said.is_empty() {
        return Finding::skipped(CLOCKS, "no agent is connected that says its time", "");
    }
    if off.is_empty() {
        let count = plural::count(said.len(), "machine");
        return Finding::ok(CLOCKS, "", format!("{count} had the time of this host"));
    }
    off.sort_by_key(|(_, ahead_ms)| std::cmp::Reverse(ahead_ms.unsigned_abs()));
    let named = off.iter().take(MOST_NAMED).map(|(at, ahead_ms)| {
        let seconds = ahead_ms.unsigned_abs() / 1000;
        let side = if *ahead_ms > 0 { "ahead" } else { "behind" };
        format!("{at} {seconds} s {side}")
    });
    let mut named = named.collect::<Vec<_>>().join(", ");
    if off.len() > MOST_NAMED {
        named.push_str(&format!(" and {} more", off.len() - MOST_NAMED));
    }
    let hint = match off.len() * 2 > said.len() {
        true => "most machines differ: it may be this host's clock (timedatectl)",
        false => "see that they reach a time server (timedatectl), and restart their agents",
    };
    let text = format!("clocks differ from this host's: {named}");
    Finding::warn(CLOCKS, "", text, hint)
}

#[cfg(test)]
mod tests {
    use aot_proto::v1::FindingLevel;

    use super::*;

    fn level(finding: &Finding) -> &'static str {
        FindingLevel::name_of(finding.level)
    }

    #[test]
    fn a_database_of_another_time_is_told_with_what_follows() {
        for (wall, ahead_ms, wanted, said) in [
            (WallClock::Well, 900, "ok", "has the time of this host"),
            (
                WallClock::Off,
                2_500,
                "warn",
                "2.5 s ahead of the database's",
            ),
            (
                WallClock::Off,
                -2_500,
                "warn",
                "2.5 s behind the database's",
            ),
            (
                WallClock::DatabaseFarOff,
                -61_000,
                "warn",
                "61.0 s behind the database's, and no other master",
            ),
            (WallClock::Unsure, 61_000, "fail", "does nothing until"),
            (
                WallClock::FarOff,
                3_600_000,
                "fail",
                "3600.0 s ahead of the database's, which other masters have",
            ),
        ] {
            let finding = of_store(StoreClock { wall, ahead_ms });
            assert_eq!(level(&finding), wanted, "{finding:?}");
            assert_eq!(finding.about, "database");
            assert!(finding.message.contains(said), "{finding:?}");
            assert_eq!(finding.hint.is_empty(), wanted == "ok", "{finding:?}");
        }
    }

    #[test]
    fn clocks_that_differ_are_named_the_worst_first() {
        let at = |name: &str, ahead_ms| {
            let key = InstanceKey {
                cluster: "web".parse().expect("a name"),
                instance: name.parse().expect("a name"),
            };
            (key, ahead_ms)
        };
        assert_eq!(level(&of_machines(&[])), "skipped");
        let well = [at("a", 4_000), at("b", -5_000)];
        assert_eq!(level(&of_machines(&well)), "ok");
        let some = [
            at("a", 61_500),
            at("b", -3_600_000),
            at("c", 1),
            at("d", 2),
            at("e", 3),
        ];
        let finding = of_machines(&some);
        assert_eq!(level(&finding), "warn");
        let wanted = "b 3600 s behind, web/a 61 s ahead";
        assert!(finding.message.ends_with(wanted), "{finding:?}");
        assert!(finding.hint.contains("time server"), "{finding:?}");
        let most = of_machines(&some[..2]);
        assert!(most.hint.contains("this host's clock"), "{most:?}");
        let many: Vec<_> = (1..=12).map(|n| at(&format!("n{n}"), 60_000)).collect();
        assert!(of_machines(&many).message.ends_with(" and 2 more"));
    }
}
