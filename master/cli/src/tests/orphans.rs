//! `orphans`, and its `--delete`.

use aot_proto::v1::{OrphanReason, OrphansReply, orphans_reply::Entry};

use super::*;

fn entry(kind: &str, id: &str, cluster: &str, uuid: &str, why: &str) -> Entry {
    Entry {
        kind: kind.into(),
        id: id.into(),
        state: "running".into(),
        cluster: cluster.into(),
        uuid: uuid.into(),
        region: "us-west-2".into(),
        why: OrphanReason::from_name(why).expect("a reason").into(),
    }
}

fn some() -> Script {
    Script {
        orphans: OrphansReply {
            entries: vec![
                entry("instance", "i-1", "old", "5f0c", "unknown cluster"),
                entry("volume", "vol-1", "old", "5f0c", "unknown cluster"),
                entry("instance", "i-2", "hadoop", "77aa", "not an instance of it"),
                entry("instance", "i-3", "hadoop", "", "not in the account"),
            ],
            regions: vec!["local".into(), "us-west-2".into()],
            notes: vec!["cannot look in eu-west-1".into()],
        },
        events: vec![
            Event {
                event: "receipt".into(),
                fields_json: r#"{"kind":"instance","id":"i-1","state":"terminated","left":false}"#
                    .into(),
                ..Event::default()
            },
            last("orphans-deleted", 0, "2 resources deleted", ""),
        ],
        ..Script::default()
    }
}

#[tokio::test]
async fn orphans_are_listed_with_their_ways_out() {
    let fake = Fake::start(some());
    let ran = run(&fake, &["orphans", "--region", "us-west-2"]).await;
    assert_eq!(ran.exit, Exit::Failed);
    insta::assert_snapshot!(format!("{}-----\n{}", ran.out, ran.err));
    assert_eq!(
        fake.asked(),
        ["OrphansRequest { region: Some(\"us-west-2\") }"]
    );
    let json = run(&fake, &["orphans", "--json"]).await;
    assert_eq!(json.exit, Exit::Failed);
    assert_eq!(
        (json.out.lines().count(), json.err.as_str()),
        (4, "note: cannot look in eu-west-1\n")
    );
}

#[tokio::test]
async fn without_orphans_it_says_where_it_looked() {
    let fake = Fake::start(Script {
        orphans: OrphansReply {
            regions: vec!["local".into(), "us-west-2".into()],
            ..OrphansReply::default()
        },
        ..Script::default()
    });
    let ran = run(&fake, &["orphans"]).await;
    assert_eq!(
        (ran.exit, ran.out.as_str(), ran.err.as_str()),
        (Exit::Well, "", "no orphans in local, us-west-2\n")
    );
}

#[tokio::test]
async fn a_deletion_wants_a_yes_and_prints_its_receipt() {
    let fake = Fake::start(some());
    let words = ["orphans", "--delete", "5f0c", "--region", "us-west-2"];
    let ran = run(&fake, &words).await;
    assert_eq!(ran.exit, Exit::Usage);
    assert!(
        ran.err.contains(
            "delete everything of cluster old, which this master and those that share its records do not know, and which may belong to one with other records: 1 instance, 1 volume?"
        ),
        "{}",
        ran.err
    );
    assert_eq!(fake.asked().len(), 1, "nothing was deleted");
    let yes: Vec<&str> = words.into_iter().chain(["--yes"]).collect();
    let ran = run(&fake, &yes).await;
    assert_eq!(ran.exit, Exit::Well);
    assert_eq!(
        (ran.out.as_str(), ran.err.as_str()),
        (
            "instance        i-1                      terminated\n",
            "00:03:04Z hadoop 2 resources deleted\n"
        )
    );
    assert_eq!(
        fake.asked()[1],
        "DeleteOrphansRequest { uuid: \"5f0c\", region: Some(\"us-west-2\") }"
    );
}
