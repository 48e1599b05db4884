//! TLS as the configuration wants it: the system's roots, one more bundle, a client certificate, or no checks.

use crate::config::Tls;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};
use std::{path::PathBuf, sync::Arc};

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be used.
    #[error("{setting} {} cannot be read as PEM: give the path of a readable PEM file", path.display())]
    File {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// A bundle without a certificate.
    #[error("cacert {} has no certificate in it: it must be a PEM bundle of certificate authorities", .0.display())]
    Empty(PathBuf),
    /// The client's certificate and key cannot be used together.
    #[error("cert and key cannot be used")]
    Client(#[source] rustls::Error),
    /// Only one of the two is set.
    #[error("cert and key must be set together")]
    Half,
    /// The library refuses.
    #[error("TLS cannot be set up")]
    Library(#[source] rustls::Error),
}

/// Reads the files and makes the client's half of TLS.
pub(crate) fn client_config(tls: &Tls) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Library)?;
    let builder = if tls.verify {
        builder.with_root_certificates(roots(tls.cacert.as_ref())?)
    } else {
        tracing::warn!("certificates of OpenStack services are not checked (verify is false)");
        builder.dangerous().with_custom_certificate_verifier(Arc::new(NoVerifier(provider)))
    };
    match (&tls.cert, &tls.key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(cert), Some(key)) => {
            let certificates = certificates("cert", cert)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::File {
                setting: "key",
                path: key.clone(),
                source,
            })?;
            builder.with_client_auth_cert(certificates, key).map_err(TlsError::Client)
        }
        _ => Err(TlsError::Half),
    }
}

fn certificates(setting: &'static str, path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.map_err(|source| TlsError::File { setting, path: path.clone(), source })
}

/// The system's roots and those of the bundle.
fn roots(bundle: Option<&PathBuf>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::debug!(%error, "some of the system's certificate authorities cannot be read");
    }
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = bundle {
        let (added, _) = roots.add_parsable_certificates(certificates("cacert", path)?);
        if added == 0 {
            return Err(TlsError::Empty(path.clone()));
        }
    }
    Ok(roots)
}

/// Takes every certificate: `verify: false`.
#[derive(Debug)]
struct NoVerifier(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerifier {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(tls: &Tls) -> String {
        client_config(tls).unwrap_err().to_string()
    }

    #[test]
    fn files_that_cannot_be_used_are_named_with_their_setting() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let tls = Tls { cacert: Some(path.clone()), ..Tls::default() };
        assert!(refused(&tls).starts_with(&format!("cacert {} cannot be read as PEM", path.display())));
        std::fs::write(&path, "nothing\n").unwrap();
        assert!(refused(&tls).contains("has no certificate in it"));
        assert!(refused(&Tls { cert: Some(path), ..Tls::default() }).contains("must be set together"));
    }

    #[test]
    fn without_checks_no_bundle_is_needed() {
        assert!(client_config(&Tls { verify: false, ..Tls::default() }).is_ok());
        assert!(client_config(&Tls::default()).is_ok());
    }
}
