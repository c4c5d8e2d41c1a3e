//! EBS volumes with a mount point: mounted before stage 0, formatted once and never again, and gone after cleanup.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aot_tests::bundle;
use aot_tests::lab::Lab;
use aot_tests::lab::master::{LAUNCH, Master, events_of};
use aot_tests::lab::story::{Story, cluster_file};
use aot_tests::wait;

/// Fails unless the volume is mounted by its unit; then leaves a line on it.
const STAGE: &str = r#"set -eu
findmnt --mountpoint /media/ebs
systemctl is-active media-ebs.mount
echo "$AOT_INSTANCE $AOT_STAGE" >> /media/ebs/marker
sync
"#;
const MARKER: &str = "cat /media/ebs/marker";
/// UUID, type and unit of what is mounted.
const MOUNTED: &str =
    "findmnt -no UUID,FSTYPE --mountpoint /media/ebs || blkid -p -o export /dev/sdf
systemctl is-active media-ebs.mount; systemctl is-enabled media-ebs.mount";
const SOON: Duration = Duration::from_secs(120);
const POOL: &str = "launch: {timeout: 240s}
pools:
  - name: web
    size: 2
    ebs: [{device: /dev/sdf, size: 1, mount: /media/ebs, fs: ext4}]
    bootstrap_sequence: [{dir: stage}]
";

#[test]
fn volumes_are_formatted_once_mounted_for_good_and_deleted_at_the_end() {
    let Some(lab) = Lab::start() else { return };
    let master = Master::start(&lab, "volumes", 7440);
    let dir = lab.dir().join("files");
    bundle::folder(&dir.join("stage"), STAGE);
    let file = cluster_file(&dir, "disks", lab.ami(), POOL);
    let mut story = Story::default();

    story.step("launch: the volumes are there before stage 0");
    master.launched(&file, 0);
    let ids = master.machine_ids();
    assert_eq!(ids.len(), 2, "two machines: {ids:?}");
    let first: BTreeMap<_, _> = ids
        .iter()
        .map(|(n, id)| (n.clone(), mounted(&lab, id)))
        .collect();
    for (name, seen) in &first {
        story.check(seen.contains("ext4"), "an ext4 file system", seen);
        story.check(
            seen.ends_with("active\nenabled\n"),
            "a unit that comes back",
            seen,
        );
        let marker = lab.sure(&ids[name], MARKER);
        story.same(marker, format!("{name} 0\n"), "the stage wrote to it");
    }

    story.step("a reboot, and a stop with a start");
    master.run(&["reboot", "web1", "--yes"]).expect(0);
    master.run(&["stop", "web2", "--yes"]).expect(0);
    master.run(&["start", "web2"]).expect(0);
    for (name, id) in &ids {
        wait_for_mount(&lab, id);
        story.same(
            &mounted(&lab, id),
            &first[name],
            "the same file system, mounted",
        );
        story.same(
            lab.sure(id, MARKER),
            format!("{name} 0\n"),
            "with what was on it",
        );
    }

    story.step("another launch with a changed stage formats nothing");
    bundle::folder(&dir.join("stage"), &format!("{STAGE}echo changed\n"));
    master.launched(&file, 0);
    for (name, id) in &ids {
        story.same(&mounted(&lab, id), &first[name], "the same file system");
        let marker = lab.sure(id, MARKER);
        story.same(
            marker,
            format!("{name} 0\n{name} 0\n"),
            "the stage ran again on it",
        );
    }

    copies(&mut story, &lab, &master, &dir, &ids["web1"]);

    story.step("cleanup");
    story.same(master.cleanup("disks").code, Some(0), "cleanup of the pool");
    let volumes = lab.ec2("ec2.describe_volumes()['Volumes']", &[]);
    story.same(
        volumes.as_array().map(Vec::len),
        Some(0),
        "no volume is left",
    );
    master.stop();
    lab.end();
    story.end();
}

fn mounted(lab: &Lab, machine: &str) -> String {
    lab.sure(machine, MOUNTED)
}

fn wait_for_mount(lab: &Lab, machine: &str) {
    let is_mounted = || lab.on(machine, "findmnt --mountpoint /media/ebs").code == Some(0);
    wait::until(is_mounted, SOON, "the volume is mounted again");
}

/// Volumes that begin with data, that outlive their machine, and that can't be used.
fn copies(story: &mut Story, lab: &Lab, master: &Master, dir: &Path, origin: &str) {
    story.step("a snapshot of a volume");
    let snapshot = snapshot(lab, origin);
    let dir = dir.join("copies");
    bundle::folder(&dir.join("stage"), STAGE);
    let launched = master
        .launch(&copies_file(&dir, lab.ami(), &snapshot))
        .finish(LAUNCH);
    launched.expect(1);

    story.step("a volume that holds a file system keeps it");
    let copy = master.machine("copy");
    let marker = lab.sure(&copy, MARKER);
    story.check(
        marker.starts_with("web1 0\nweb1 0\ncopy 0\n"),
        "the snapshot's content",
        &marker,
    );
    story.same(
        mounted(lab, &copy),
        mounted(lab, origin),
        "the same file system",
    );

    story.step("a file system that can't be made fails its instance alone");
    let volume = volume_of(lab, &master.machine("bad"));
    let failed = events_of(&launched, "bad", "instance-failed");
    story.same(failed.len(), 1, "one instance-failed");
    let said = failed
        .first()
        .and_then(|event| event["message"].as_str())
        .unwrap_or_default();
    story.check(
        said.contains(&volume) && said.contains("xfs"),
        "it names volume and cause",
        said,
    );
    story.check(
        events_of(&launched, "bad", "stage-started").is_empty(),
        "no stage starts without the volume",
        &launched,
    );
    let status = master.run(&["--cluster", "copies", "status"]).text();
    story.check(status.contains(&volume), "status says why", &status);
    story.same(
        master.status("copy")["phase"].as_str(),
        Some("ready"),
        "the other one is ready",
    );

    story.step("a volume that outlives its machine is deleted by cleanup");
    let kept = volume_of(lab, &copy);
    let done = master.cleanup("copies");
    story.same(done.code, Some(0), "cleanup");
    story.check(done.text().contains(&kept), "it is on the receipt", &done);
    story.check(!there(lab, &kept), "it is gone", &kept);
}

fn copies_file(dir: &Path, ami: &str, snapshot: &str) -> PathBuf {
    let rest = format!(
        "launch: {{timeout: 240s}}
instances:
  - name: copy
    ebs: [{{device: /dev/sdf, snapshot: {snapshot}, mount: /media/ebs, delete_on_termination: false}}]
    bootstrap_sequence: [{{dir: stage}}]
  - name: bad                    # the image has no mkfs.xfs
    ebs: [{{device: /dev/sdg, size: 1, mount: /media/ebs, fs: xfs}}]
    bootstrap_sequence: [{{dir: stage}}]
"
    );
    cluster_file(dir, "copies", ami, &rest)
}

fn snapshot(lab: &Lab, machine: &str) -> String {
    let made = lab.ec2(
        "ec2.create_snapshot(VolumeId=args[0])['SnapshotId']",
        &[&volume_of(lab, machine)],
    );
    made.as_str().expect("an id").to_owned()
}

/// The volume of a machine besides its root disk.
fn volume_of(lab: &Lab, machine: &str) -> String {
    let found = lab.ec2(
        "[d['Ebs']['VolumeId'] for i in ec2.describe_instances(InstanceIds=args)['Reservations'][0]['Instances']
          for d in i['BlockDeviceMappings'] if d['DeviceName'] != i['RootDeviceName']]",
        &[machine],
    );
    found[0].as_str().expect("it has a volume").to_owned()
}

fn there(lab: &Lab, volume: &str) -> bool {
    let all = lab.ec2(
        "[v['VolumeId'] for v in ec2.describe_volumes()['Volumes']]",
        &[],
    );
    all.as_array()
        .expect("a list")
        .iter()
        .any(|id| id == volume)
}
