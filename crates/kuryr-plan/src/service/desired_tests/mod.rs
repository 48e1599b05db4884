mod endpoints;
mod exposed;
mod providers;
mod services;
