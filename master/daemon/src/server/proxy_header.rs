//! What a master writes before the bytes of a machine that it passes on to another: the machine's address, as a header of the
//! PROXY protocol, version 2 ("The PROXY protocol", HAProxy Technologies, sections 2.2 and 2.2.7). Pure; used by `hello`, which
//! reads it, and by `route`, which writes it.
//!
//! Whoever can reach the port can write such a header, so its last field says when it was made and is signed with what only the
//! masters of one fleet know. It does not say to whom: who steals one off the wire between two masters can, for a minute, have
//! its own connection counted as that machine's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aot_model::hash::{JoinKey, PurposeKey};

/// How every header begins. No message of TLS does.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, and the command PROXY.
const PROXY: u8 = 0x21;

/// TCP over IPv4 and IPv6.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// Signature, command, family, length of the rest.
const HEAD: usize = SIGNATURE.len() + 4;

/// Type of the last field: the first of those that are free for applications (PP2_TYPE_MIN_CUSTOM).
const PROOF: u8 = 0xE0;

/// Its length: the time in milliseconds since 1970, and HMAC-SHA256 of all bytes before that.
const PROOF_BYTES: u16 = 8 + TAG as u16;
const TAG: usize = 32;

/// Of the last field in all: type, length, value.
const PROOF_FIELD: usize = 3 + PROOF_BYTES as usize;

/// Longest header: what the specification has every receiver take at once.
const MAX_BYTES: usize = 216;

/// How far apart the clocks of two masters may be, and how long a header may take.
const GOOD_FOR_MS: u64 = 60_000;

/// The key that headers are signed with.
pub(super) fn key(join_key: &JoinKey) -> PurposeKey {
    join_key.of_purpose("address of a machine that is passed on")
}

/// How a connection begins, as far as its bytes say it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// Without a header.
    Plain,
    /// With a part of one: more has to come.
    Part,
    /// With a header of this length, which another master wrote for this machine.
    Header {
        /// The machine.
        machine: SocketAddr,
        /// Of the header.
        bytes: usize,
    },
}

/// A header that is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadHeader {
    /// It is none of ours: too long, or not of TCP, or without the proof.
    #[error("a PROXY header that no master of this fleet writes")]
    Foreign,
    /// The key is another, or something was changed.
    #[error("a PROXY header that was not signed by a master of this fleet")]
    Forged,
    /// It is from another time.
    #[error(
        "a PROXY header that was signed {0} s ago: compare the clocks of the masters, of which one may be wrong"
    )]
    Old(i64),
}

/// The header for a machine that dialled `door`, an address of ours.
pub(super) fn written(
    machine: SocketAddr,
    door: SocketAddr,
    key: &PurposeKey,
    now_ms: u64,
) -> Vec<u8> {
    let (from, to) = (machine.ip().to_canonical(), door.ip().to_canonical());
    let (family, addresses) = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (TCP4, [from.octets(), to.octets()].concat()),
        (from, to) => (TCP6, [as_v6(from).octets(), as_v6(to).octets()].concat()),
    };
    let rest = addresses.len() + 4 + PROOF_FIELD;
    let rest = u16::try_from(rest).expect("it is at most 83");
    let mut header = SIGNATURE.to_vec();
    header.extend([PROXY, family]);
    header.extend(rest.to_be_bytes());
    header.extend(addresses);
    header.extend(machine.port().to_be_bytes());
    header.extend(door.port().to_be_bytes());
    header.push(PROOF);
    header.extend(PROOF_BYTES.to_be_bytes());
    header.extend(now_ms.to_be_bytes());
    let tag = key.sign(&header);
    header.extend(tag);
    header
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// Reads the begin of a connection, of which these bytes have come so far.
///
/// # Errors
/// When it is a header, or may become one, that is not to be believed.
pub(super) fn read(bytes: &[u8], key: &PurposeKey, now_ms: u64) -> Result<Opening, BadHeader> {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes[..known] != SIGNATURE[..known] {
        return Ok(Opening::Plain);
    }
    let Some(head) = bytes.first_chunk::<HEAD>() else {
        return Ok(Opening::Part);
    };
    let [.., command, family, high, low] = *head;
    let length = HEAD + usize::from(u16::from_be_bytes([high, low]));
    let addresses = match family {
        TCP4 => 2 * 4,
        TCP6 => 2 * 16,
        _ => return Err(BadHeader::Foreign),
    };
    let least = HEAD + addresses + 4 + PROOF_FIELD;
    if command != PROXY || !(least..=MAX_BYTES).contains(&length) {
        return Err(BadHeader::Foreign);
    }
    let Some(header) = bytes.get(..length) else {
        return Ok(Opening::Part);
    };
    check(header, key, now_ms)?;
    Ok(Opening::Header {
        machine: machine(&header[HEAD..], addresses),
        bytes: length,
    })
}

/// Whether this is how a connection begins that a master with this key passes on now. For tests that feed it whatever bytes there
/// are.
pub fn is_header(bytes: &[u8], join_key: &JoinKey, now_ms: u64) -> bool {
    let start = read(bytes, &key(join_key), now_ms);
    matches!(start, Ok(Opening::Header { .. }))
}

/// Whether it ends in a proof, and that is good. What a later version has between addresses and proof is signed too, and ignored.
fn check(header: &[u8], key: &PurposeKey, now_ms: u64) -> Result<(), BadHeader> {
    let (_, proof) = header.split_at(header.len() - PROOF_FIELD);
    let (signed, tag) = header.split_at(header.len() - TAG);
    let [high, low] = PROOF_BYTES.to_be_bytes();
    if proof[..3] != [PROOF, high, low] {
        return Err(BadHeader::Foreign);
    }
    if !key.has_signed(signed, tag) {
        return Err(BadHeader::Forged);
    }
    let at = proof[3..].first_chunk().copied().unwrap_or_default();
    let at_ms = u64::from_be_bytes(at);
    if at_ms.abs_diff(now_ms) > GOOD_FOR_MS {
        let ago = (i128::from(now_ms) - i128::from(at_ms)) / 1000;
        return Err(BadHeader::Old(i64::try_from(ago).unwrap_or(i64::MAX)));
    }
    Ok(())
}

/// The first of the two addresses, and its port.
fn machine(rest: &[u8], addresses: usize) -> SocketAddr {
    let ip: IpAddr = match addresses {
        8 => Ipv4Addr::from(rest.first_chunk().copied().unwrap_or_default()).into(),
        _ => Ipv6Addr::from(rest.first_chunk().copied().unwrap_or_default()).into(),
    };
    let port = rest[addresses..].first_chunk().copied().unwrap_or_default();
    SocketAddr::new(ip, u16::from_be_bytes(port))
}

#[cfg(test)]
mod tests;
