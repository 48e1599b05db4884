mod arbitrary;
mod holds;
mod octavia;
mod properties;
