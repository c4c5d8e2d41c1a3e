//! Cluster facts as master and agents have them in common: `content` is what they say, as a whole and as changes of it,
//! `pieces` how they travel. Pure.

mod content;
mod pieces;

pub use content::{BadChange, Content, Hash, digest, entry, hash, json};
pub use pieces::{BadPiece, Joiner, PIECE_BYTES, Pieces, pieces};
