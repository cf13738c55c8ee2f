"""What the build takes from outside: RE2 and nlohmann_json as tools/fetch_sources.py gets them, and the
configuration reader that tools/generate_config_schema.py makes from api/."""

def _root(repository_ctx):
    # Bazel 8 does not look for files of that name any more, but this one is there in both.
    return repository_ctx.path(Label("//:BUILD.bazel")).dirname

def _run(repository_ctx, command, problem):
    result = repository_ctx.execute(command, timeout = 600, quiet = False)
    if result.return_code != 0:
        fail("%s:\n%s%s" % (problem, result.stdout, result.stderr))

def _fetched_source_impl(repository_ctx):
    root = _root(repository_ctx)
    name = repository_ctx.attr.source
    repository_ctx.path(Label("//tools:fetch_sources.py"))
    _run(
        repository_ctx,
        ["python3", "%s/tools/fetch_sources.py" % root, name, "--destination", "."],
        "the source of %s could not be fetched" % name,
    )

    # Upstream's own BUILD files would make packages of these folders.
    repository_ctx.execute(["find", name, "-name", "BUILD*", "-delete"])
    repository_ctx.execute(["find", name, "-name", "WORKSPACE*", "-delete"])
    repository_ctx.symlink(repository_ctx.attr.build_file, "BUILD.bazel")

_fetched_source = repository_rule(
    implementation = _fetched_source_impl,
    attrs = {
        "source": attr.string(mandatory = True),
        "build_file": attr.label(mandatory = True),
    },
    environ = ["METAPROTOCOL_SOURCES_DIR"],
)

def _config_schema_impl(repository_ctx):
    root = _root(repository_ctx)
    python = repository_ctx.os.environ.get("METAPROTOCOL_PYTHON", "")
    if not python:
        environment = root.get_child(".venv").get_child("bin").get_child("python")
        python = str(environment) if environment.exists else "python3"

    # Naming the files makes them inputs: the reader is generated anew when one changes.
    for label in repository_ctx.attr.inputs:
        repository_ctx.path(label)
    _run(
        repository_ctx,
        [
            python,
            "%s/tools/generate_config_schema.py" % root,
            "--proto-dir",
            "%s/api" % root,
            "--out-dir",
            "generated",
        ],
        "the configuration reader could not be generated (it needs a Python with grpcio-tools: " +
        "run 'make setup', or name one in METAPROTOCOL_PYTHON)",
    )
    repository_ctx.file("BUILD.bazel", """
package(default_visibility = ["//visibility:public"])

cc_library(
    name = "headers",
    hdrs = ["generated/config_schema.h"],
    includes = ["."],
)

filegroup(
    name = "sources",
    srcs = ["generated/config_schema.cc"],
)
""")

_config_schema = repository_rule(
    implementation = _config_schema_impl,
    attrs = {"inputs": attr.label_list(allow_files = True)},
    environ = ["METAPROTOCOL_PYTHON"],
)

def declare_repositories(existing = ()):
    """Declares the repositories above.

    Args:
      existing: names of those that are declared already, which stay as they are.
    """
    if "metaprotocol_re2" not in existing:
        _fetched_source(
            name = "metaprotocol_re2",
            build_file = "@metaprotocol//bazel:re2.BUILD",
            source = "re2",
        )
    if "metaprotocol_nlohmann_json" not in existing:
        _fetched_source(
            name = "metaprotocol_nlohmann_json",
            build_file = "@metaprotocol//bazel:nlohmann_json.BUILD",
            source = "nlohmann_json",
        )
    if "metaprotocol_config_schema" not in existing:
        _config_schema(
            name = "metaprotocol_config_schema",
            inputs = [
                "@metaprotocol//api:metaprotocol/config/v1/%s.proto" % name
                for name in [
                    "access_log",
                    "authorization",
                    "cluster_policy",
                    "condition",
                    "declaration",
                    "external_authorization",
                    "fault",
                    "filter",
                    "key_value",
                    "library_filter",
                    "options",
                    "proxy_config",
                    "rate_limit",
                    "request_metrics",
                    "retry",
                    "route",
                    "tracing",
                ]
            ] + [
                "@metaprotocol//tools:config_schema.py",
                "@metaprotocol//tools:generate_config_schema.py",
            ],
        )

def metaprotocol_repositories():
    """For WORKSPACE: declares what is not declared yet."""
    declare_repositories(native.existing_rules())
