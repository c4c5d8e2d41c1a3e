//! Whether the master is of this command's build: two builds may speak differently on the socket, and the older one has to be
//! replaced. Called by those that have an answer of the master which says its build; never refuses anything.

use aot_proto::v1::{InfoReply, InfoRequest};

use super::Ctx;
use super::dial::{Client, QUERY, within};
use super::error::Error;

impl Ctx<'_> {
    /// Warns once when the master is of another build than this command. One that names no build is older than that field.
    pub(crate) fn compare_build(&mut self, info: &InfoReply) -> Result<(), Error> {
        let own = &self.env.build;
        if std::mem::replace(&mut self.compared, true) || own.is_empty() || *own == info.build {
            return Ok(());
        }
        let master = match info.build.as_str() {
            "" => format!("an older build (version {})", info.version),
            build => build.to_owned(),
        };
        let way_out = match info.background {
            true => "aot-master restart",
            false => "systemctl restart aot-master, or run aot-master serve again",
        };
        let text = format!(
            "warning: the master runs {master}, this command is {own}; restart the master: {way_out}"
        );
        self.message(&text)
    }

    /// [`Ctx::compare_build`] by what another answer says of the master.
    pub(crate) async fn compare_build_of(
        &mut self,
        client: &mut Client,
        build: &str,
        background: bool,
    ) -> Result<(), Error> {
        if self.compared || self.env.build.is_empty() {
            return Ok(());
        }
        let info = match build {
            // Too old to say here how it was started, either.
            "" => {
                let asked = client.info(within(QUERY, InfoRequest::default())).await?;
                asked.into_inner()
            }
            build => InfoReply {
                build: build.to_owned(),
                background,
                ..InfoReply::default()
            },
        };
        self.compare_build(&info)
    }
}
