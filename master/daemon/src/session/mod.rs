//! All that one `Attach` stream of an agent is in the master: `wall` bounds what comes in, `protocol` decides, `stream` moves
//! messages, `reports` carries what the agent reports to the rest of the master, `life` runs both to their end. Started by
//! `server`, which alone knows that the stream is gRPC; knows neither the transport nor the loop.

mod closed;
pub(crate) mod end;
#[cfg(test)]
mod fake;
mod hand_out;
pub(crate) mod life;
pub(crate) mod protocol;
pub(crate) mod registry;
pub(crate) mod reports;
pub(crate) mod stream;
pub(crate) mod wall;

pub(crate) use closed::Closed;
