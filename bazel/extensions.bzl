"""The module extension of MODULE.bazel: the repositories of WORKSPACE."""

load(":repositories.bzl", "declare_repositories")

def _metaprotocol_sources_impl(_module_ctx):
    declare_repositories()

metaprotocol_sources = module_extension(implementation = _metaprotocol_sources_impl)
