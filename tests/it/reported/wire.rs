//! HTTP as proxies, browsers and clients speak it.
