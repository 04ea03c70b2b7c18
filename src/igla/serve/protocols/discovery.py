"""What Google's discovery-based clients ask first: a description of Perspective's methods."""

from typing import Any

from igla.serve.protocols.perspective import AnalyzeRequest, SuggestCommentScoreRequest

_METHODS = {"analyze": AnalyzeRequest, "suggestscore": SuggestCommentScoreRequest}


def discovery(root: str) -> dict[str, Any]:
    """A discovery document (google-api format, discoveryVersion v1) of a server at a URL.

    Messages are left open: what is in them is checked by the server alone.
    """
    schemas = {
        kind: {"id": kind, "type": "object", "additionalProperties": {"type": "any"}}
        for model in _METHODS.values()
        for kind in (model.__name__, _answer(model.__name__))
    }
    return {
        "kind": "discovery#restDescription",
        "discoveryVersion": "v1",
        "id": "commentanalyzer:v1alpha1",
        "name": "commentanalyzer",
        "canonicalName": "Comment Analyzer",
        "version": "v1alpha1",
        "title": "Perspective Comment Analyzer API, served by igla",
        "protocol": "rest",
        "rootUrl": root,
        "servicePath": "",
        "baseUrl": root,
        "batchPath": "batch",
        "parameters": {
            "key": {"type": "string", "location": "query"},
            "alt": {"type": "string", "location": "query", "default": "json"},
        },
        "schemas": schemas,
        "resources": {
            "comments": {
                "methods": {
                    name: {
                        "id": f"commentanalyzer.comments.{name}",
                        "path": f"v1alpha1/comments:{name}",
                        "flatPath": f"v1alpha1/comments:{name}",
                        "httpMethod": "POST",
                        "parameterOrder": [],
                        "parameters": {},
                        "request": {"$ref": model.__name__},
                        "response": {"$ref": _answer(model.__name__)},
                    }
                    for name, model in _METHODS.items()
                }
            }
        },
    }


def _answer(request: str) -> str:
    return request.removesuffix("Request") + "Response"
