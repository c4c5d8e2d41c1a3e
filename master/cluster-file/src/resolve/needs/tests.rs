//! Needs of whole files: every form, every mistake, and cycles of any shape.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use aot_model::spec::{ClusterSpec, Need};
use proptest::prelude::*;

use crate::parse;

const FILE: &str = "cluster: c
provider: local
instances:
  - name: manager
    stages: [{dir: base}, {dir: x, name: setup}]
  - {name: bare}
pools:
  - name: db
    size: 3
    stages: [{dir: base}, {dir: y}, {dir: base}]
  - {name: none, size: 0, stages: [{dir: x}]}
  - name: web
    size: 2
    stages: [{dir: w, needs: NEED}]
";

fn read(text: &str) -> Result<ClusterSpec, String> {
    parse(text, Path::new("/cluster.yml"))
        .map(|parsed| parsed.spec)
        .map_err(|report| report.to_string())
}

fn need(text: &str) -> Result<Need, String> {
    let spec = read(&FILE.replace("NEED", text))?;
    Ok(spec.pools.last().unwrap().stages[0].needs[0].clone())
}

#[test]
fn a_need_is_of_one_or_of_all_by_number_by_name_or_of_the_last() {
    let table: [(&str, &[&str], u32); 8] = [
        ("manager/0", &["manager"], 0),
        ("manager/setup", &["manager"], 1),
        ("manager", &["manager"], 1),
        ("db2/1", &["db2"], 1),
        ("db2/y", &["db2"], 1),
        ("\"pool:db/0\"", &["db1", "db2", "db3"], 0),
        ("\"pool:db/y\"", &["db1", "db2", "db3"], 1),
        ("\"pool:db\"", &["db1", "db2", "db3"], 2),
    ];
    for (text, of, stage) in table {
        let need = need(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let names: Vec<&str> = need.of.iter().map(|name| name.as_str()).collect();
        assert_eq!((&names[..], need.stage), (of, stage), "{text}");
        assert_eq!(need.text, text.trim_matches('"'));
    }
    assert_eq!(need("\"pool:none/0\"").map(|need| need.of), Ok(Vec::new()));
}

#[test]
fn every_mistake_says_what_there_is() {
    let table = [
        (
            "manager/2",
            "manager has no stage 2",
            "its stages are 0 (base), 1 (setup)",
        ),
        (
            "manager/setpu",
            "manager has no stage \"setpu\"",
            "did you mean \"setup\"?",
        ),
        (
            "db1/base",
            "db1 has more than one stage \"base\"",
            "by its number: 0 or 2",
        ),
        ("bare", "bare has no stages", "remove the need"),
        ("bare/0", "bare has no stages", "remove the need"),
        (
            "db4/0",
            "no instance is named \"db4\"",
            "did you mean \"db1\"?",
        ),
        ("db", "\"db\" is a pool, not an instance", "pool:db"),
        (
            "\"pool:bd/0\"",
            "no pool is named \"bd\"",
            "did you mean \"db\"?",
        ),
        ("\"pool:manager\"", "no pool is named \"manager\"", ""),
        ("\"pool:\"", "\"pool:\" is not a need", "INSTANCE/STAGE"),
        ("\"/1\"", "\"/1\" is not a need", "INSTANCE/STAGE"),
        ("manager/", "\"manager/\" is not a need", "INSTANCE/STAGE"),
    ];
    for (text, message, help) in table {
        let report = parse(&FILE.replace("NEED", text), Path::new("/cluster.yml"))
            .expect_err(text)
            .render(false);
        let shown = report.replace("\n  ", " ");
        assert!(shown.contains(message), "{text}: {report}");
        assert!(shown.contains(help), "{text}: {report}");
        assert!(report.contains("/cluster.yml:14:"), "{text}: {report}");
    }
}

#[test]
fn a_circle_is_named_whole_and_pointed_at() {
    let table = [
        ("web1/0", "waits for itself: web1/0 -> web1/0", 14),
        ("\"pool:web\"", "waits for itself: web1/0 -> web1/0", 14),
        ("web2/0", "waits for itself: web2/0 -> web2/0", 14),
    ];
    for (need, message, line) in table {
        let report = parse(&FILE.replace("NEED", need), Path::new("/cluster.yml")).expect_err(need);
        assert_eq!(report.problems().len(), 1, "{report}");
        assert!(
            report.render(false).contains(message),
            "{}",
            report.render(false)
        );
        assert!(
            report
                .render(false)
                .contains(&format!("/cluster.yml:{line}:")),
            "{}",
            report.render(false)
        );
    }
    let text = "cluster: c
provider: local
instances:
  - {name: a, stages: [{dir: x, needs: b}, {dir: y}]}
  - {name: b, stages: [{dir: x}, {dir: y, needs: a/1}]}
  - {name: d, stages: [{dir: x, needs: e}]}
  - {name: e, stages: [{dir: x, needs: d}]}
  - {name: f, stages: [{dir: x, needs: [a, e]}]}
";
    let report = parse(text, Path::new("/cluster.yml")).expect_err("two cycles");
    assert_eq!(report.problems().len(), 2, "{report}");
    let shown = report.render(false);
    assert!(
        shown.contains("waits for itself: a/0 -> b/1 -> a/1 -> a/0"),
        "{shown}"
    );
    assert!(shown.contains("/cluster.yml:4:40"), "{shown}");
    assert!(
        shown.contains("waits for itself: d/0 -> e/0 -> d/0"),
        "{shown}"
    );
}

#[test]
fn a_pool_may_wait_for_all_of_itself_between_stages() {
    let good = FILE.replace(
        "[{dir: w, needs: NEED}]",
        "[{dir: w}, {dir: v, needs: [\"pool:web/0\", web1/0]}]",
    );
    assert!(read(&good).is_ok());
    let bad = good.replace("web/0", "web/1");
    assert!(read(&bad).is_err_and(|error| error.contains("web1/1 -> web1/1")));
}

/// A need of a pool's stage on a member (`None` = all) of a pool, and its stage.
type Needed = ((usize, usize), (usize, Option<usize>, usize));

/// Pools by size and number of stages, and needs.
#[derive(Debug, Clone)]
struct Graph {
    pools: Vec<(usize, usize)>,
    needs: Vec<Needed>,
}

fn graphs() -> impl Strategy<Value = Graph> {
    let pools = prop::collection::vec((0usize..4, 1usize..4), 1..5);
    let picks = any::<[prop::sample::Index; 6]>();
    (pools, prop::collection::vec(picks, 0..9)).prop_map(|(pools, picks)| {
        let need = |pick: &[prop::sample::Index; 6]| {
            let (from, on) = (pick[0].index(pools.len()), pick[1].index(pools.len()));
            let member =
                Some(pick[3].index(3)).filter(|it| pick[2].index(2) == 0 && *it < pools[on].0);
            let stages = (pick[4].index(pools[from].1), pick[5].index(pools[on].1));
            ((from, stages.0), (on, member, stages.1))
        };
        let needs = picks.iter().map(need).collect();
        Graph { pools, needs }
    })
}

impl Graph {
    fn text(&self) -> String {
        let mut text = "cluster: c\nprovider: local\npools:\n".to_owned();
        for (pool, (size, stages)) in self.pools.iter().enumerate() {
            writeln!(text, "  - name: p{pool}x\n    size: {size}\n    stages:").unwrap();
            for stage in 0..*stages {
                let needs: Vec<String> = self
                    .needs
                    .iter()
                    .filter(|(from, _)| *from == (pool, stage))
                    .map(|(_, (on, member, stage))| match member {
                        Some(member) => format!("\"p{on}x{}/{stage}\"", member + 1),
                        None => format!("\"pool:p{on}x/{stage}\""),
                    })
                    .collect();
                writeln!(text, "      - {{dir: d, needs: [{}]}}", needs.join(", ")).unwrap();
            }
        }
        text
    }

    /// Whether all stages of all members can be run, one after the other: plainly, by doing it.
    fn can_run(&self) -> bool {
        let all: BTreeSet<(usize, usize, usize)> = self
            .pools
            .iter()
            .enumerate()
            .flat_map(|(pool, (size, stages))| {
                (0..*size)
                    .flat_map(move |member| (0..*stages).map(move |stage| (pool, member, stage)))
            })
            .collect();
        let mut done = BTreeSet::new();
        loop {
            let may = |&&(pool, member, stage): &&(usize, usize, usize)| {
                let before = stage == 0 || done.contains(&(pool, member, stage - 1));
                before
                    && self
                        .needs
                        .iter()
                        .filter(|(from, _)| *from == (pool, stage))
                        .all(|(_, (on, one, stage))| {
                            (0..self.pools[*on].0)
                                .filter(|member| one.is_none_or(|one| one == *member))
                                .all(|member| done.contains(&(*on, member, *stage)))
                        })
            };
            match all.iter().filter(|step| !done.contains(*step)).find(may) {
                Some(step) => done.insert(*step),
                None => return done.len() == all.len(),
            };
        }
    }
}

proptest! {
    #[test]
    fn a_file_is_good_when_its_stages_have_an_order(graph in graphs()) {
        let text = graph.text();
        let read = read(&text);
        prop_assert_eq!(read.is_ok(), graph.can_run(), "{}\n{:?}", text, read.err());
    }

    #[test]
    fn a_circle_that_is_told_is_one(graph in graphs()) {
        let Err(report) = read(&graph.text()) else { return Ok(()) };
        for line in report.lines().filter(|line| line.contains("waits for itself")) {
            let (_, cycle) = line.split_once("itself: ").unwrap();
            let cycle = cycle.split(" (").next().unwrap();
            let stops: Vec<(usize, usize, usize)> = cycle.split(" -> ").map(|stop| {
                let (name, stage) = stop.trim().split_once('/').unwrap();
                let (pool, member) = name[1..].split_once('x').unwrap();
                (pool.parse().unwrap(), member.parse::<usize>().unwrap() - 1, stage.parse().unwrap())
            }).collect();
            prop_assert_eq!(stops.first(), stops.last());
            for pair in stops.windows(2) {
                let (from, on) = (pair[0], pair[1]);
                let before = (from.0, from.1) == (on.0, on.1) && from.2 == on.2 + 1;
                let need = graph.needs.iter().any(|(step, (pool, member, stage))| {
                    *step == (from.0, from.2) && (*pool, *stage) == (on.0, on.2) && member.is_none_or(|it| it == on.1)
                });
                prop_assert!(before || need, "{from:?} does not wait for {on:?}: {line}");
            }
        }
    }
}

#[test]
fn what_is_wrong_elsewhere_hides_no_need() {
    let said = |from: &str, to: &str, need: &str| {
        let text = FILE.replacen(from, to, 1).replace("NEED", need);
        assert_ne!(text, FILE, "{from}");
        let report = read(&text).expect_err("two mistakes");
        report.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    for (from, to, need, want) in [
        // The size of the pool that is needed, or of the one that needs.
        (
            "size: 3",
            "size: three",
            "\"pool:db/9\"",
            Some("has no stage 9"),
        ),
        (
            "size: 3",
            "size: three",
            "db2/9",
            Some("db2 has no stage 9"),
        ),
        (
            "size: 3",
            "size: three",
            "db/9",
            Some("\"db\" is a pool, not an instance"),
        ),
        (
            "size: 3",
            "size: three",
            "dc2/0",
            Some("no instance is named \"dc2\""),
        ),
        ("size: 2", "size: two", "manager/9", Some("has no stage 9")),
        (
            "size: 2",
            "size: two",
            "menager",
            Some("did you mean \"manager\"?"),
        ),
        // Keys that have nothing to do with names or stages, at any place.
        (
            "provider: local",
            "provider: local\nregion: [x]",
            "menager",
            Some("no instance is named"),
        ),
        (
            "- {name: bare}",
            "- {name: bare, user: [x]}",
            "bare/0",
            Some("has no stages"),
        ),
        // Another stage of the pool, or of the one that is needed.
        (
            "{dir: w,",
            "{name: w}, {dir: w,",
            "manager/9",
            Some("has no stage 9"),
        ),
        ("{dir: y}", "{name: y}", "\"pool:db/9\"", None),
        // What may have been meant for stages or names.
        (
            "- {name: bare}",
            "- {name: bare, stagse: [{dir: x}]}",
            "bare/0",
            None,
        ),
        ("- {name: bare}", "- {nam: bare}", "bear/0", None),
        ("pools:", "pols: []\npools:", "bear/0", None),
    ] {
        let found = said(from, to, need);
        match want {
            Some(want) => {
                assert_eq!(found.len(), 2, "{to} {need}: {found:?}");
                assert!(
                    found.iter().any(|it| it.contains(want)),
                    "{to} {need}: {found:?}"
                );
            }
            None => assert!(
                found.iter().all(|it| !it.contains(".needs")),
                "{to} {need}: {found:?}"
            ),
        }
    }
}
