//! Plugins reach real servers by TLS, which the host ends, and those they should
//! not trust get nothing.

mod kafka;
mod nats;
mod rabbitmq;
mod redis;
mod webhook;
