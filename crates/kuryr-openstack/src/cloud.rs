//! A cloud to which there is a connection.

use crate::{
    AuthError, CloudConfig, NoEndpoint, Options, Service,
    auth::Auth,
    http::Http,
    load_balancer::LoadBalancing,
    network::Network,
    session::{CallOptions, Session},
    tls::TlsError,
};
use kuryr_model::ProjectId;
use std::{fmt, sync::Arc};

/// Why there is no connection to the cloud. One sentence that says what to do, with the cause as its source.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Keystone gave no token.
    #[error(transparent)]
    Auth(#[from] Arc<AuthError>),
    /// A service is not in the catalog.
    #[error(transparent)]
    NoEndpoint(#[from] NoEndpoint),
}

impl ConnectError {
    /// Whether trying again may help, as opposed to changing a setting.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Auth(error) => error.is_transient(),
            Self::Tls(_) | Self::NoEndpoint(_) => false,
        }
    }
}

/// Who Keystone says that we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Name of the user.
    pub user: String,
    /// The project that the token is for.
    pub project: Option<ProjectId>,
    /// Its name.
    pub project_name: String,
    /// Names of the roles in it.
    pub roles: Vec<String>,
}

/// A cloud, with a token and the addresses of its services. Cheap to clone; all clones share connections, token and
/// limits.
#[derive(Clone)]
pub struct Cloud {
    session: Arc<Session>,
}

impl Cloud {
    /// Authenticates and finds Neutron in the catalog.
    pub async fn connect(config: CloudConfig) -> Result<Self, ConnectError> {
        Self::connect_with(config, Options::default()).await
    }

    /// The same with other than the usual options.
    pub async fn connect_with(config: CloudConfig, options: Options) -> Result<Self, ConnectError> {
        let http = Http::new(&config.tls)?;
        let auth = Arc::new(Auth::new(http.clone(), config, options.timeout, options.observer.clone()));
        let token = auth.token().await?;
        token.url(Service::Network)?;
        Ok(Self { session: Arc::new(Session::new(http, auth, options)) })
    }

    /// Neutron.
    #[must_use]
    pub fn network(&self) -> Network {
        Network::new(self.session.clone(), CallOptions::default())
    }

    /// Octavia. Whether there is one, [`Cloud::url`] says; without one, every call is an error that says so.
    #[must_use]
    pub fn load_balancing(&self) -> LoadBalancing {
        LoadBalancing::new(self.session.clone(), CallOptions::default())
    }

    /// The address of a service.
    pub fn url(&self, service: Service) -> Result<String, NoEndpoint> {
        match service {
            Service::Identity => Ok(self.session.auth.auth_url()),
            service => self.session.auth.current().map_or_else(|| Ok(String::new()), |token| token.url(service)),
        }
    }

    /// Who we are.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.session.auth.current().map(|token| token.identity().clone()).unwrap_or_default()
    }
}

impl fmt::Debug for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cloud").field("auth_url", &self.session.auth.auth_url()).finish_non_exhaustive()
    }
}
