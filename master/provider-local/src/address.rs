//! Ids and addresses of clones. Pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use aot_proto::ids::MachineId;
use aot_provider::token::hash_hex;

/// Hex digits in an id, as many as EC2 uses.
const ID_DIGITS: usize = 17;

/// Addresses that a clone may get: 127.64.0.0/10 without first and last of every /24.
const BLOCKS: u32 = 64 << 8;
const HOSTS: u32 = 254;

/// The id of a launch's Nth machine: a repeated launch finds the same ones.
pub(crate) fn machine_id(cluster_uuid: &str, token: &str, index: u32) -> MachineId {
    let hash = hash_hex(&[Some(cluster_uuid), Some(token), Some(&index.to_string())]);
    format!("local-{}", &hash[..ID_DIGITS])
        .parse()
        .expect("a prefix and hex digits are a machine id")
}

/// An address of its own in 127.0.0.0/8, which `lo` answers for without any set-up: the first free one after the place
/// that the id stands for. `None` when all four million are taken.
pub(crate) fn choose(id: &MachineId, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let hash = hash_hex(&[Some(id.as_str())]);
    let start = u32::from_str_radix(&hash[..8], 16).expect("eight hex digits are a number");
    let count = BLOCKS * HOSTS;
    (0..count)
        .map(|step| nth((start % count + step) % count))
        .find(|address| !taken.contains(address))
}

/// The Nth address of the range.
fn nth(place: u32) -> Ipv4Addr {
    let base = u32::from(Ipv4Addr::new(127, 64, 0, 0));
    Ipv4Addr::from(base + ((place / HOSTS) << 8) + place % HOSTS + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_repeat_and_differ() {
        let id = machine_id("u", "t", 0);
        assert_eq!(id, machine_id("u", "t", 0));
        assert_eq!(id.as_str().len(), "local-".len() + 17);
        for other in [
            machine_id("v", "t", 0),
            machine_id("u", "s", 0),
            machine_id("u", "t", 1),
        ] {
            assert_ne!(id, other);
        }
    }

    proptest! {
        #[test]
        fn addresses_are_loopback_and_never_shared(seeds in proptest::collection::vec("[a-z]{1,8}", 1..60)) {
            let mut taken = BTreeSet::new();
            for (index, seed) in seeds.iter().enumerate() {
                let id = machine_id(seed, "t", u32::try_from(index).unwrap());
                let address = choose(&id, &taken).unwrap();
                let [first, second, _, last] = address.octets();
                prop_assert!(first == 127 && (64..128).contains(&second) && last != 0 && last != 255);
                prop_assert!(taken.insert(address));
            }
        }
    }

    #[test]
    fn a_taken_address_gives_the_next() {
        let id = machine_id("u", "t", 0);
        let first = choose(&id, &BTreeSet::new()).unwrap();
        let second = choose(&id, &BTreeSet::from([first])).unwrap();
        assert_ne!(first, second);
        assert_eq!(choose(&id, &BTreeSet::new()), Some(first));
    }
}
