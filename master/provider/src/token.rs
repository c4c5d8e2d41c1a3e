//! Names made of hashes: machines, batches and addresses of clones. Called by `local`; pure.

use aot_model::hash::hex;
use aws_lc_rs::digest;

/// Lower-case hex SHA-256 over the parts, each with its length before it, so that no two lists read the same.
pub fn hash_hex(parts: &[Option<&str>]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        match part {
            Some(text) => {
                context.update(&(text.len() as u64 + 1).to_be_bytes());
                context.update(text.as_bytes());
            }
            None => context.update(&0_u64.to_be_bytes()),
        }
    }
    hex(context.finish().as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_lists_read_the_same() {
        let lists: [&[Option<&str>]; 5] = [
            &[Some("ab"), Some("c")],
            &[Some("a"), Some("bc")],
            &[Some("abc")],
            &[Some("abc"), None],
            &[Some("abc"), Some("")],
        ];
        for (index, list) in lists.iter().enumerate() {
            for other in &lists[index + 1..] {
                assert_ne!(hash_hex(list), hash_hex(other), "{list:?} {other:?}");
            }
        }
    }
}
