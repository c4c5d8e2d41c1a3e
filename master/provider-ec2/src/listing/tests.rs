use super::*;
use crate::fake::Replay;

const TAGS: &str = "<tagSet><item><key>aot:cluster-uuid</key><value>u</value></item></tagSet>";

#[tokio::test]
async fn all_pages_are_read() {
    let fake = Replay::default();
    fake.ok(
        "DescribeVolumes",
        &format!("<volumeSet><item><volumeId>vol-1</volumeId>{TAGS}</item></volumeSet><nextToken>more</nextToken>"),
    )
    .ok(
        "DescribeVolumes",
        &format!("<volumeSet><item><volumeId>vol-2</volumeId>{TAGS}</item></volumeSet><nextToken/>"),
    );
    let found = volumes(&fake.client().await, of_cluster("u"))
        .await
        .unwrap();
    let ids: Vec<_> = found
        .iter()
        .filter_map(|volume| volume.volume_id())
        .collect();
    assert_eq!(ids, ["vol-1", "vol-2"]);
    let asked = fake.asked("DescribeVolumes");
    assert_eq!(asked[0].get("NextToken"), None);
    assert_eq!(asked[1]["NextToken"], "more");
    assert_eq!(asked[1]["Filter.1.Name"], "tag:aot:cluster-uuid");
}

#[tokio::test]
async fn machines_come_in_pages_of_a_bounded_size() {
    let page = |ids: &[&str]| {
        let item = |id: &&str| {
            format!(
                "<item><instanceId>{id}</instanceId><amiLaunchIndex>0</amiLaunchIndex><instanceState><name>running</name></instanceState>{TAGS}</item>"
            )
        };
        let items: String = ids.iter().map(item).collect();
        format!(
            "<reservationSet><item><ownerId>1</ownerId><instancesSet>{items}</instancesSet></item></reservationSet>"
        )
    };
    let fake = Replay::default();
    let more = page(&["i-1", "i-2"]) + "<nextToken>more</nextToken>";
    fake.ok("DescribeInstances", &more)
        .ok("DescribeInstances", &page(&["i-3"]));
    let found = machines(&fake.client().await, "r", of_cluster("u"))
        .await
        .unwrap();
    let ids: Vec<_> = found.machines.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(ids, ["i-1", "i-2", "i-3"]);
    let asked = fake.asked("DescribeInstances");
    assert_eq!(asked.len(), 2);
    assert!(
        asked.iter().all(|it| it["MaxResults"] == "500"),
        "{asked:?}"
    );
    assert_eq!(asked[1]["NextToken"], "more");
}

#[tokio::test]
async fn a_list_without_an_end_is_left() {
    let endless = |_| async { Ok((vec![1_u8], Some("again".to_owned()))) };
    let error = pages("DescribeX", endless).await.unwrap_err();
    assert!(error.message.contains("DescribeX"), "{error}");
}

#[tokio::test]
async fn what_carries_another_uuid_is_not_ours_whatever_the_filter_said() {
    let tagged = |id: &str, uuid: &str| {
        format!(
            "<item><instanceId>{id}</instanceId><amiLaunchIndex>0</amiLaunchIndex><instanceState><name>running</name></instanceState><tagSet><item><key>aot:cluster-uuid</key><value>{uuid}</value></item></tagSet></item>"
        )
    };
    let bare = "<item><instanceId>i-3</instanceId><amiLaunchIndex>0</amiLaunchIndex><instanceState><name>running</name></instanceState></item>";
    let all = tagged("i-1", "u") + &tagged("i-2", "other") + bare;
    let fake = Replay::default();
    fake.ok(
        "DescribeInstances",
        &format!(
            "<reservationSet><item><instancesSet>{all}</instancesSet></item></reservationSet>"
        ),
    );
    fake.ok(
        "DescribeVolumes",
        "<volumeSet><item><volumeId>vol-1</volumeId></item></volumeSet>",
    );
    let client = fake.client().await;
    let found = machines(&client, "r", of_cluster("u")).await.unwrap();
    let ids: Vec<&str> = found.machines.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(ids, ["i-1"]);
    assert!(found.unclear.is_empty());
    let any = instances(&client, of_any_cluster()).await.unwrap();
    assert_eq!(any.len(), 2);
    let volumes = volumes(&client, of_cluster("u")).await.unwrap();
    assert!(volumes.is_empty());
}

#[tokio::test]
async fn an_odd_instance_hides_no_other() {
    let tags = "<tagSet><item><key>aot:cluster-uuid</key><value>u</value></item></tagSet>";
    let odd = format!("<item><instanceId>i-1</instanceId>{tags}</item>");
    let good = format!(
        "<item><instanceId>i-2</instanceId><amiLaunchIndex>0</amiLaunchIndex><instanceState><name>running</name></instanceState>{tags}</item>"
    );
    let fake = Replay::default();
    fake.ok(
        "DescribeInstances",
        &format!(
            "<reservationSet><item><instancesSet>{odd}{good}</instancesSet></item></reservationSet>"
        ),
    );
    let found = machines(&fake.client().await, "r", of_cluster("u"))
        .await
        .unwrap();
    assert_eq!(found.machines[0].id.as_str(), "i-2");
    assert_eq!(found.unclear[0].as_str(), "i-1");
}

#[tokio::test]
async fn an_instance_without_an_id_is_an_answer_cut_off() {
    let fake = Replay::default();
    fake.ok(
        "DescribeInstances",
        &format!("<reservationSet><item><instancesSet><item><amiLaunchIndex>0</amiLaunchIndex>{TAGS}</item></instancesSet></item></reservationSet>"),
    );
    let client = fake.client().await;
    let error = machines(&client, "r", of_cluster("u")).await.unwrap_err();
    assert_eq!(error.leftovers, aot_provider::Leftovers::Unknown);
}
