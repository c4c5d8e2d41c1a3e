//! Tests of what `status` shows again and again. What it prints once is in the tests of the commands.

use aot_proto::v1::last_lines_reply::Line;
use aot_proto::v1::{ClusterView, InfoReply, StatusReply};

use super::*;
use crate::view::{Streams, samples};

fn with_ctx<T>(f: impl FnOnce(&mut Ctx<'_>) -> T) -> (T, String) {
    let env = crate::tests::env_in(std::path::Path::new("/nonexistent"));
    let out = crate::view::Kept::default();
    let mut io = Streams {
        stdin: Box::new(std::io::empty()),
        stdout: crate::view::Out::new(out.clone()),
        stderr: crate::view::Out::new(std::io::sink()),
    };
    let mut ctx = Ctx {
        env: &env,
        io: &mut io,
        json: false,
        quiet: false,
        cluster: None,
        verbose: None,
        greets: false,
        compared: true,
        keeps_requests: false,
        background: false,
        has_shown: false,
    };
    let result = f(&mut ctx);
    (result, out.text())
}

fn overview(clusters: usize, instances: usize) -> Overview {
    let mut reply = StatusReply::default();
    let mut printing = HashMap::new();
    for number in 0..clusters {
        let name = format!("c{number}");
        for n in 0..instances {
            let phase = if n % 2 == 0 { "ready" } else { "bootstrapping" };
            let mut view = samples::view(&format!("web{n}"), phase, &["running"]);
            view.cluster.clone_from(&name);
            reply.instances.push(view);
        }
        let line = Line {
            instance: "web1".into(),
            stage: 0,
            text: "fetching".into(),
        };
        printing.insert(name.clone(), vec![line]);
        reply.clusters.push(ClusterView {
            name,
            provider: "local".into(),
            ..ClusterView::default()
        });
    }
    Overview {
        master: Some(InfoReply {
            build: "0.1.0 (1a2b3c4d5e6f)".into(),
            listen: "127.0.0.1:7440".into(),
            started_unix: 1_767_225_784,
            sessions: Some(1),
            ..InfoReply::default()
        }),
        reply,
        printing,
    }
}

#[test]
fn a_picture_fits_whatever_there_is_in_it() {
    for clusters in [0, 1, 2, 7, 50] {
        for instances in [0, 3, 200] {
            let seen = overview(clusters, instances);
            for most in [10, 23, 49] {
                let (lines, _) = with_ctx(|ctx| picture_lines(ctx, &seen, most));
                let all = lines.join("\n");
                assert!(lines.len() <= most, "{} of {most}:\n{all}", lines.len());
                assert!(all.contains("master 0.1.0 (1a2b3c4d5e6f), listens on 127.0.0.1:7440 since 2026-01-01 00:03:04Z, 1 session"), "{all}");
                let named = (0..clusters)
                    .filter(|n| all.contains(&format!("c{n}  ")))
                    .count();
                assert!(named == clusters || all.contains("more cluster"), "{all}");
            }
        }
    }
    let (lines, _) = with_ctx(|ctx| picture_lines(ctx, &overview(1, 4), 23));
    assert!(
        lines.iter().any(|line| line.ends_with("fetching")),
        "{lines:?}"
    );
}

#[test]
fn without_a_terminal_only_changes_are_printed() {
    let which = MaybeTarget::default();
    let ((), out) = with_ctx(|ctx| {
        ctx.json = true;
        let mut before = None;
        let mut seen = overview(1, 3);
        print_changes(ctx, &seen, &which, &mut before).expect("printed");
        seen.reply.instances[1].stage_views[0].ms += 1000; // it only runs on
        print_changes(ctx, &seen, &which, &mut before).expect("printed");
        seen.reply.instances[2].note = "something else".into();
        print_changes(ctx, &seen, &which, &mut before).expect("printed");
    });
    let names: Vec<String> = out
        .lines()
        .map(|line| {
            let json: serde_json::Value = serde_json::from_str(line).expect("JSON");
            json["name"].as_str().unwrap_or_default().to_owned()
        })
        .collect();
    assert_eq!(names, ["web0", "web1", "web2", "web2"]);
}

#[test]
fn what_a_stage_prints_stands_behind_its_time() {
    let seen = overview(1, 2);
    let ((), out) = with_ctx(|ctx| {
        print(ctx, &seen, &MaybeTarget::default()).expect("printed");
    });
    assert!(
        out.contains("bundle-0 (1 of 1) running for 3.0 s: fetching\n"),
        "{out}"
    );
}
