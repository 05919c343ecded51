"""Plugins whose hooks are wrong, each in one way."""

from __future__ import annotations

import os
import time

import numpynet

from automl_tl.hookspecs import hookimpl
from automl_tl.specs import Backbone


class _Right:
    @hookimpl
    def automl_tl_backends(self):
        return [numpynet.backend()]

    @hookimpl
    def automl_tl_backbones(self):
        return [numpynet.backbone()]


class _FrameworkInHook(_Right):
    @hookimpl
    def automl_tl_backbones(self):
        import mxnet  # noqa: F401

        return [numpynet.backbone()]


class _TwiceTheSame(_Right):
    @hookimpl
    def automl_tl_backbones(self):
        return [numpynet.backbone(), numpynet.backbone()]


class _TakenName(_Right):
    @hookimpl
    def automl_tl_backbones(self):
        facts = {"load": numpynet.load, "input_size": 32, "parameters": 1}
        return [numpynet.backbone(), Backbone("tiny", "torch", **facts)]


class _Misspelt(_Right):
    @hookimpl
    def automl_tl_backbone(self):
        return [numpynet.backbone()]


class _Unmarked(_Right):
    def automl_tl_datasets(self):
        return []


class _WrongSignature(_Right):
    @hookimpl
    def automl_tl_search_space(self, network):
        return None


class _Failing(_Right):
    @hookimpl
    def automl_tl_datasets(self):
        yield from ()
        raise OSError("the list of data sets cannot be fetched")


class _Hanging(_Right):
    @hookimpl
    def automl_tl_engines(self):
        time.sleep(3600)


class _Exiting(_Right):
    @hookimpl
    def automl_tl_engines(self):
        os._exit(3)


class _WrongType(_Right):
    @hookimpl
    def automl_tl_backbones(self):
        return [numpynet.backbone(), {"name": "patches", "backend": "numpynet"}]


class _WrongSpace(_Right):
    @hookimpl
    def automl_tl_search_space(self, backbone):
        return {"learning_rates": 1e-3}


class _WrongDescription(_Right):
    @hookimpl
    def automl_tl_backbones(self):
        return [numpynet.backbone("small", min_size=24)]


framework_in_hook = _FrameworkInHook()
twice_the_same = _TwiceTheSame()
taken_name = _TakenName()
misspelt = _Misspelt()
unmarked = _Unmarked()
wrong_signature = _WrongSignature()
failing = _Failing()
hanging = _Hanging()
exiting = _Exiting()
wrong_type = _WrongType()
wrong_space = _WrongSpace()
wrong_description = _WrongDescription()
