//! Tests of `explain`: checks, events, consoles, and what is left out.

use proptest::prelude::*;

use super::*;
use crate::fake::Replay;

fn ids(texts: &[&str]) -> Vec<MachineId> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn statuses_of(items: &[&str]) -> String {
    format!("<instanceStatusSet>{}</instanceStatusSet>", items.concat())
}

const IMPAIRED: &str = "<item><instanceId>i-1</instanceId><systemStatus><status>ok</status></systemStatus><instanceStatus><status>impaired</status></instanceStatus><eventsSet><item><code>instance-reboot</code><description>kernel</description><notBefore>2026-11-22T10:00:00.000Z</notBefore></item><item><code>system-reboot</code><description>[Completed] old</description></item></eventsSet></item>";
const STOPPED: &str = "<item><instanceId>i-2</instanceId><systemStatus><status>not-applicable</status></systemStatus><instanceStatus><status>not-applicable</status></instanceStatus></item>";

fn output(text: &str) -> String {
    format!("<output>{}</output>", STANDARD.encode(text))
}

#[tokio::test]
async fn checks_events_and_console_make_a_text() {
    let fake = Replay::default();
    fake.ok("DescribeInstanceStatus", &statuses_of(&[IMPAIRED, STOPPED]))
        .refuse("GetConsoleOutput", 400, "UnsupportedOperation", "not Nitro")
        .ok(
            "GetConsoleOutput",
            &output("one\r\n\u{1b}[0;32mtwo\u{7}\u{1b}[0m\n"),
        );
    let texts = explain(&fake.client().await, &ids(&["i-1"])).await;
    assert_eq!(
        texts[&ids(&["i-1"])[0]],
        "state checks: system ok, instance impaired\nscheduled: instance-reboot from 2026-11-22T10:00:00Z: kernel\nend of its console:\none\ntwo"
    );
    let asked = fake.asked("GetConsoleOutput");
    assert_eq!(
        (asked[0]["Latest"].as_str(), asked[1]["Latest"].as_str()),
        ("true", "false")
    );
    assert_eq!(
        fake.asked("DescribeInstanceStatus")[0]["IncludeAllInstances"],
        "true"
    );
}

#[tokio::test]
async fn what_is_not_known_is_left_out() {
    let fake = Replay::default();
    fake.refuse(
        "DescribeInstanceStatus",
        400,
        "InvalidInstanceID.NotFound",
        "The instance ID 'i-3' does not exist",
    )
    .ok("DescribeInstanceStatus", &statuses_of(&[IMPAIRED, STOPPED]))
    .refuse("GetConsoleOutput", 403, "UnauthorizedOperation", "no");
    let texts = explain(&fake.client().await, &ids(&["i-1", "i-2", "i-3"])).await;
    assert_eq!(texts.keys().cloned().collect::<Vec<_>>(), ids(&["i-1"]));
    assert!(!texts[&ids(&["i-1"])[0]].contains("console"));
    let asked = &fake.asked("DescribeInstanceStatus")[1];
    assert_eq!(
        (
            asked.get("InstanceId.2").map(String::as_str),
            asked.get("InstanceId.3")
        ),
        (Some("i-2"), None)
    );
}

#[tokio::test]
async fn checks_are_one_call_and_consoles_few() {
    let fake = Replay::default();
    fake.refuse("DescribeInstanceStatus", 403, "UnauthorizedOperation", "no")
        .ok("GetConsoleOutput", &output("up\n"));
    let many: Vec<MachineId> = (0..40)
        .map(|number| format!("i-{number}").parse().unwrap())
        .collect();
    let texts = explain(&fake.client().await, &many).await;
    assert_eq!(fake.asked("DescribeInstanceStatus").len(), 1);
    assert_eq!(fake.asked("GetConsoleOutput").len(), MAX_CONSOLES);
    assert_eq!(texts.len(), MAX_CONSOLES);
    assert!(texts.values().all(|text| text == "end of its console:\nup"));
}

#[test]
fn a_long_console_is_cut_from_the_front() {
    let lines: Vec<String> = (0..100).map(|number| format!("line {number}")).collect();
    let text = tail(lines.join("\n").as_bytes());
    assert_eq!(text.lines().count(), CONSOLE_LINES);
    assert!(text.ends_with("line 99"));
    assert_eq!(
        tail("é".repeat(CONSOLE_BYTES).as_bytes()).len(),
        CONSOLE_BYTES
    );
}

proptest! {
    #[test]
    fn any_console_is_plain_short_text(bytes: Vec<u8>) {
        let text = tail(&bytes);
        prop_assert!(text.len() <= CONSOLE_BYTES);
        prop_assert!(text.chars().all(|char| char == '\n' || !char.is_control()));
    }
}

#[test]
fn what_cloud_init_says_about_host_keys_pushes_nothing_out() {
    let keys = "cloud-init[7]: ####################################\n\
        <14>Nov 21 15:20:19 cloud-init: -----BEGIN SSH HOST KEY FINGERPRINTS-----\n\
        <14>Nov 21 15:20:19 cloud-init: 256 SHA256:IOzvJd6U1r root@ip (ECDSA)\n\
        -----END SSH HOST KEY FINGERPRINTS-----\n-----BEGIN SSH HOST KEY KEYS-----\n\
        ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 root@ip\n-----END SSH HOST KEY KEYS-----\n";
    let text = format!("aot: failed, no room\n{}finished\n", keys.repeat(9));
    assert_eq!(tail(text.as_bytes()), "aot: failed, no room\nfinished");
    for line in [
        "aot: SHA256 AAAA",
        "AAAA is not a key",
        "#### not a rule ####",
    ] {
        assert_eq!(tail(line.as_bytes()), line);
    }
}
