//! Compiles the .proto files with protox: no protoc is needed on the machine.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

const FILES: [&str; 3] = [
    "aot/v1/types.proto",
    "aot/v1/agent.proto",
    "aot/v1/operator.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(out, descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .codec_path("crate::codec::Codec")
        .bytes(".aot.v1.SpoolData.data")
        .bytes(".aot.v1.ClusterFacts.entries")
        .bytes(".aot.v1.ClusterFactsPiece.data")
        .bytes(".aot.v1.FetchChunk.data")
        .bytes(".aot.v1.JobOutput.data")
        .bytes(".aot.v1.UploadChunk.data")
        .bytes(".aot.v1.TunnelPiece.data")
        .bytes(".aot.v1.Frame")
        .skip_debug([".aot.v1.SecretValue"]) // src/secret.rs has it: without the value
        .compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed=aot");
    Ok(())
}
