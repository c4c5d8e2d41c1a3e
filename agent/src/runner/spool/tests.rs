//! A spool as its writer leaves it, as a power cut leaves it, and as it is read.

use std::io::Write;

use aot_proto::frame::{self, MAX_FRAME_BYTES};
use aot_proto::limits::SPOOL_CHUNK_BYTES;
use aot_proto::v1::frame::Body;
use proptest::prelude::*;

use super::*;

#[test]
fn a_torn_frame_is_cut_off_and_the_end_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(SPOOL);
    let (mut writer, scan) = SpoolWriter::open(dir.path()).unwrap();
    assert_eq!((scan.whole_bytes, scan.is_ended()), (0, false));
    writer.append_output(b"one", Body::Stdout).unwrap();
    let whole = std::fs::metadata(&path).unwrap().len();
    OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(&[9, 0, 0, 0, 1])
        .unwrap();
    assert_eq!(
        read(&path, 0, 1000).unwrap().data.len() as u64,
        whole,
        "a reader ignores what is torn"
    );
    let (mut writer, scan) = SpoolWriter::open(dir.path()).unwrap();
    assert_eq!(scan.whole_bytes, whole);
    for _ in 0..2 {
        writer.end(ended(EndKind::Interrupted, "x")).unwrap();
    }
    assert!(super::scan(&path).unwrap().is_ended());
    assert!(stat(&path).unwrap().marked, "it is marked");
    let chunk = read(&path, 0, 1000).unwrap();
    assert!(chunk.end);
    assert_eq!(frame::decode_all(&chunk.data).unwrap().0.len(), 2);
}

#[test]
fn a_mark_is_true_or_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(SPOOL);
    let (mut writer, _) = SpoolWriter::open(dir.path()).unwrap();
    writer.append(Body::Stdout(vec![b'x'; 10].into())).unwrap();
    writer.mark();
    let open = stat(&path).unwrap();
    assert!(!open.marked, "there is no end record yet");
    writer.end(ended(EndKind::Exited, "")).unwrap();
    let ended_stat = stat(&path).unwrap();
    assert!(ended_stat.bytes > open.bytes && ended_stat.marked);
    // An ended one can be opened again, by anybody, and gets no second end.
    let (mut writer, scan) = SpoolWriter::open(dir.path()).unwrap();
    assert!(scan.is_ended());
    writer.end(ended(EndKind::Interrupted, "late")).unwrap();
    assert_eq!(stat(&path).unwrap(), ended_stat);
    // A power cut took the end and left the mark.
    fs::set_permissions(&path, Permissions::from_mode(OPEN_MODE)).unwrap();
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..usize::try_from(open.bytes).unwrap()]).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(ENDED_MODE)).unwrap();
    let (writer, scan) = SpoolWriter::open(dir.path()).unwrap();
    assert_eq!((scan.whole_bytes, scan.is_ended()), (open.bytes, false));
    assert_eq!(stat(&path).unwrap(), open);
    assert!(!writer.is_forgotten());
    fs::remove_file(&path).unwrap();
    assert!(writer.is_forgotten());
}

proptest! {
    #[test]
    fn pieces_put_together_are_the_file(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 1..20), most in MAX_FRAME_BYTES..SPOOL_CHUNK_BYTES,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, _) = SpoolWriter::open(dir.path()).unwrap();
        for part in &parts {
            writer.append_output(part, Body::Stderr).unwrap();
        }
        writer.end(ended(EndKind::Exited, "")).unwrap();
        let path = dir.path().join(SPOOL);
        let file = std::fs::read(&path).unwrap();
        let mut got = Vec::new();
        loop {
            let chunk = read(&path, got.len() as u64, most).unwrap();
            prop_assert!(!chunk.data.is_empty() && chunk.data.len() <= most);
            got.extend_from_slice(&chunk.data);
            prop_assert_eq!(chunk.end, got.len() == file.len());
            if chunk.end { break; }
        }
        prop_assert_eq!(got, file);
    }
}

#[test]
fn an_end_written_after_a_power_cut_goes_behind_what_the_master_has() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = SpoolWriter::open(dir.path()).unwrap();
    writer.append(Body::Stdout(vec![b'x'; 10].into())).unwrap();
    let start = std::fs::metadata(dir.path().join(SPOOL)).unwrap().len();
    writer.end(ended(EndKind::Interrupted, "power")).unwrap();
    let scan = super::scan(&dir.path().join(SPOOL)).unwrap();
    assert_eq!(scan.last_start, start);
    for (acked, wanted) in [
        (0, 0),
        (start, 0),
        (scan.whole_bytes, 0),
        (start + 1, 1),
        (scan.whole_bytes + 100, scan.whole_bytes + 100 - start),
    ] {
        assert_eq!(shift(&scan, acked), wanted, "acked {acked}");
    }
    let open = Scan::default();
    assert_eq!(shift(&open, 5), 0, "a run that has not ended is left alone");
}
