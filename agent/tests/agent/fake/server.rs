//! The master's port: TLS with certificates on both sides, HTTP/2 on it.

use std::sync::Arc;

use aot_proto::v1::agent_link_server::AgentLinkServer;
use aot_proto::v1::enrolment_server::EnrolmentServer;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::api::Api;
use super::master::Master;

/// Serves every connection until it is dropped.
pub(crate) async fn serve(listener: TcpListener, master: Arc<Master>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["fake-master".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, &master.issuer).unwrap();
    let provider = aot_agent::inside::provider();
    let roots = aot_agent::inside::roots(&master.ca_pem).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
        .allow_unauthenticated()
        .build()
        .unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let routes = tonic::service::Routes::new(EnrolmentServer::new(Api(master.clone())))
        .add_service(AgentLinkServer::new(Api(master.clone())))
        .prepare();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, routes) = (acceptor.clone(), routes.clone());
        let named = master.clone();
        let task = tokio::spawn(async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                let name = stream.get_ref().1.server_name().map(str::to_owned);
                named.change(|state| state.server_names.push(name));
                let service = TowerToHyperService::new(routes);
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            }
        });
        master.lock().connections.push(task.abort_handle());
    }
}
