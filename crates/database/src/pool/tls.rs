//! TLS towards Postgres, with libpq's meaning of `sslmode`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::Error;

/// How a connection URL wants its server checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TlsMode {
    /// `verify-ca` and `verify-full` check the certificate, and so does `require` where an authority is named;
    /// otherwise `prefer` and `require` only encrypt, as in libpq.
    pub(super) verify: bool,
    /// `sslrootcert` of the URL, or the configured file.
    pub(super) ca_file: Option<PathBuf>,
}

/// Takes `sslmode=verify-*` and `sslrootcert` out of a URL, since tokio-postgres knows neither.
pub(super) fn split_mode(url: &str, ca_file: Option<&Path>) -> (String, TlsMode) {
    let mut mode = TlsMode { verify: false, ca_file: ca_file.map(Path::to_path_buf) };
    let Some((base, query)) = url.split_once('?') else {
        return (url.to_owned(), mode);
    };
    let mut kept = Vec::new();
    let mut required = false;
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("sslmode", "verify-ca" | "verify-full")) => {
                mode.verify = true;
                kept.push("sslmode=require".to_owned());
            }
            Some(("sslmode", "require")) => {
                required = true;
                kept.push(pair.to_owned());
            }
            Some(("sslmode", "allow")) => kept.push("sslmode=prefer".to_owned()),
            Some(("sslrootcert", path)) => mode.ca_file = Some(path.into()),
            _ => kept.push(pair.to_owned()),
        }
    }
    mode.verify |= required && mode.ca_file.is_some();
    let url = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
    (url, mode)
}

pub(super) fn connector(mode: &TlsMode) -> Result<MakeRustlsConnect, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Tls(e.to_string()))?;
    let config = if mode.verify {
        let mut roots = RootCertStore::empty();
        if let Some(path) = &mode.ca_file {
            let certificates = CertificateDer::pem_file_iter(path)
                .map_err(|e| Error::Tls(format!("cannot read certificates from {}: {e}", path.display())))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|e| Error::Tls(format!("{}: {e}", path.display())))?;
                roots.add(certificate).map_err(|e| Error::Tls(format!("{}: {e}", path.display())))?;
            }
        } else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        builder.with_root_certificates(roots).with_no_client_auth()
    } else {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(EncryptOnly(provider)))
            .with_no_client_auth()
    };
    Ok(MakeRustlsConnect::new(config))
}

/// Encrypts without checking who answers: what libpq does for `prefer` and `require`.
#[derive(Debug)]
struct EncryptOnly(Arc<CryptoProvider>);

impl ServerCertVerifier for EncryptOnly {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
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

    #[test]
    fn sslmode_has_libpq_meaning() {
        let cases = [
            ("postgres://h/d", "postgres://h/d", false),
            ("postgres://h/d?sslmode=require", "postgres://h/d?sslmode=require", false),
            ("postgres://h/d?sslmode=verify-full&x=1", "postgres://h/d?sslmode=require&x=1", true),
            ("postgres://h/d?sslmode=allow", "postgres://h/d?sslmode=prefer", false),
        ];
        for (url, expected, verify) in cases {
            let (got, mode) = split_mode(url, None);
            assert_eq!((got.as_str(), mode.verify), (expected, verify), "{url}");
        }
        let (url, mode) = split_mode("postgres://h/d?sslrootcert=/ca.pem&sslmode=verify-ca", None);
        assert_eq!(url, "postgres://h/d?sslmode=require");
        assert_eq!(mode.ca_file.as_deref(), Some(Path::new("/ca.pem")));
        let (_, mode) = split_mode("postgres://h/d?sslmode=require", Some(Path::new("/ca.pem")));
        assert!(mode.verify, "an authority that is named is meant");
    }
}
