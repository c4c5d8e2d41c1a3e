//! What is believed of a header, and that nothing else is.

use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_800_000_000_000;

fn ours() -> PurposeKey {
    key(&JoinKey::new(&[1; 32]))
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn header() -> Vec<u8> {
    written(
        address("10.1.2.3:4567"),
        address("10.0.0.1:7440"),
        &ours(),
        NOW,
    )
}

/// Signs anew what was changed before the tag.
fn signed(mut header: Vec<u8>) -> Vec<u8> {
    header.truncate(header.len() - TAG);
    let tag = ours().sign(&header);
    header.extend(tag);
    header
}

#[test]
fn what_is_written_is_read_again_whatever_follows() {
    for (machine, door, seen) in [
        ("10.1.2.3:4567", "10.0.0.1:7440", "10.1.2.3:4567"),
        ("[2001:db8::7]:1", "[2001:db8::1]:2", "[2001:db8::7]:1"),
        // A port of IPv6 that takes IPv4 too.
        (
            "[::ffff:10.1.2.3]:4567",
            "[::ffff:10.0.0.1]:2",
            "10.1.2.3:4567",
        ),
        ("[2001:db8::7]:1", "10.0.0.1:2", "[2001:db8::7]:1"),
    ] {
        let header = written(address(machine), address(door), &ours(), NOW);
        assert!(header.len() <= MAX_BYTES);
        let wanted = Opening::Header {
            machine: address(seen),
            bytes: header.len(),
        };
        let followed = [&header[..], b"\x16\x03\x01"].concat();
        assert_eq!(read(&followed, &ours(), NOW), Ok(wanted));
    }
}

#[test]
fn the_bytes_are_those_of_the_specification() {
    let header = header();
    assert_eq!(header[..12], *b"\r\n\r\n\0\r\nQUIT\n");
    assert_eq!(header[12..16], [0x21, 0x11, 0, 12 + 43]);
    assert_eq!(header[16..24], [10, 1, 2, 3, 10, 0, 0, 1]);
    assert_eq!(header[24..28], [0x11, 0xd7, 0x1d, 0x10]);
    assert_eq!(header[28..31], [0xe0, 0, 40]);
    assert_eq!(header.len(), 16 + 12 + 43);
}

#[test]
fn a_part_of_a_header_waits_for_the_rest_and_tls_for_nothing() {
    let header = header();
    for length in 0..header.len() {
        assert_eq!(
            read(&header[..length], &ours(), NOW),
            Ok(Opening::Part),
            "{length}"
        );
    }
    for plain in [&b"\x16\x03\x01"[..], b"GET /", b"PROXY TCP4", b"\r\n\r\nx"] {
        assert_eq!(read(plain, &ours(), NOW), Ok(Opening::Plain));
    }
}

#[test]
fn a_forged_one_is_refused_wherever_it_was_changed() {
    let theirs = key(&JoinKey::new(&[2; 32]));
    assert_eq!(read(&header(), &theirs, NOW), Err(BadHeader::Forged));
    for at in HEAD..header().len() {
        let mut changed = header();
        changed[at] ^= 1;
        let refused = read(&changed, &ours(), NOW);
        assert!(
            matches!(refused, Err(BadHeader::Forged | BadHeader::Foreign)),
            "{at}"
        );
    }
}

#[test]
fn an_old_one_is_refused_and_one_that_is_early_too() {
    for (now, is_good) in [
        (NOW + GOOD_FOR_MS, true),
        (NOW - GOOD_FOR_MS, true),
        (NOW + GOOD_FOR_MS + 1000, false),
        (NOW - GOOD_FOR_MS - 1000, false),
        (0, false),
        (u64::MAX, false),
    ] {
        assert_eq!(read(&header(), &ours(), now).is_ok(), is_good, "{now}");
    }
    let refused = read(&header(), &ours(), NOW + 90_000);
    assert_eq!(refused, Err(BadHeader::Old(90)));
}

#[test]
fn headers_of_load_balancers_and_oversized_ones_are_refused_at_their_head() {
    let load_balancer = |command, family, length: u16| {
        let mut header = SIGNATURE.to_vec();
        header.extend([command, family]);
        header.extend(length.to_be_bytes());
        header
    };
    for (what, header) in [
        ("an address alone", load_balancer(0x21, 0x11, 12)),
        ("a health check", load_balancer(0x20, 0x00, 0)),
        ("a unix socket", load_balancer(0x21, 0x31, 216)),
        ("UDP", load_balancer(0x21, 0x12, 12)),
        ("too long", load_balancer(0x21, 0x11, 201)),
        ("as long as can be", load_balancer(0x21, 0x21, u16::MAX)),
        ("another version", load_balancer(0x11, 0x11, 12 + 43)),
    ] {
        assert_eq!(
            read(&header, &ours(), NOW),
            Err(BadHeader::Foreign),
            "{what}"
        );
    }
}

#[test]
fn a_field_of_a_later_version_is_ignored_where_the_proof_comes_last() {
    let mut longer = header();
    let field = [0xE1, 0, 2, 7, 7];
    longer.splice(28..28, field);
    longer[15] += field.len() as u8;
    let longer = signed(longer);
    let machine = address("10.1.2.3:4567");
    let bytes = longer.len();
    assert_eq!(
        read(&longer, &ours(), NOW),
        Ok(Opening::Header { machine, bytes })
    );
    let mut behind = header();
    let tag = behind.split_off(28);
    behind.extend([tag, field.to_vec()].concat());
    behind[15] += field.len() as u8;
    assert_eq!(read(&behind, &ours(), NOW), Err(BadHeader::Foreign));
}

proptest! {
    #[test]
    fn no_bytes_of_others_are_believed(bytes in prop::collection::vec(any::<u8>(), 0..300), is_signed in any::<bool>()) {
        let bytes = match is_signed {
            true => [&SIGNATURE[..], &bytes].concat(),
            false => bytes,
        };
        let read = read(&bytes, &ours(), NOW);
        let is_header = matches!(read, Ok(Opening::Header { .. }));
        prop_assert!(!is_header);
    }
}
