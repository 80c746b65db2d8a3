# SPDX-License-Identifier: Apache-2.0
"""TaskFlow decorators: a function returns the input, and the task runs the workflow with it.

Airflow offers them as ``@task.promptlayer_workflow(…)`` and ``@task.promptlayer_batch(…)``, which
take any arguments as far as an editor knows. Imported from here they have types.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, Protocol, TypeVar, Unpack

from airflow.providers.common.compat.sdk import (
    DecoratedOperator,
    context_merge,
    determine_kwargs,
    task_decorator_factory,
)

from airflow_provider_promptlayer.api.arguments import encode, items
from airflow_provider_promptlayer.api.errors import PromptLayerInvalidInputError
from airflow_provider_promptlayer.operators.batches import PromptLayerRunWorkflowBatchOperator
from airflow_provider_promptlayer.operators.workflows import PromptLayerRunWorkflowOperator
from airflow_provider_promptlayer.xcom import outputs as xcom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.sdk.bases.decorator import Task

    from airflow_provider_promptlayer.bases.arguments import BatchTaskKwargs, WorkflowTaskKwargs
    from airflow_provider_promptlayer.bases.batch_inputs import BatchInputs
    from airflow_provider_promptlayer.bases.kind import Submission

_Arguments = ParamSpec("_Arguments")
_Returned = TypeVar("_Returned")
_Input = TypeVar("_Input", bound="Mapping[str, Any] | str")
_Inputs = TypeVar("_Inputs", bound="Sequence[Mapping[str, Any]] | str")

__all__ = ["promptlayer_batch_task", "promptlayer_workflow_task"]


def _template_fields(operator: type[Any], returned_as: str) -> Sequence[str]:
    """Return the template fields of a task: the function's arguments, and those of the operator.

    What the function returns is data, in which nothing is rendered.
    """
    of_operator = (name for name in operator.template_fields if name != returned_as)
    return (*DecoratedOperator.template_fields, *of_operator)


class _FunctionTask(DecoratedOperator):
    """What the decorated tasks share: the function is called once in each try, before all else."""

    custom_operator_name: ClassVar[str]
    """What Airflow shows as the kind of task."""

    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        "metadata": "json",
    }

    returned_as: ClassVar[str]
    """The argument of the operator in whose place the function's result is."""

    def __init__(self, *, python_callable: Callable[..., Any], **kwargs: Any) -> None:
        if inspect.iscoroutinefunction(inspect.unwrap(python_callable)):
            raise PromptLayerInvalidInputError(
                f"{self.custom_operator_name} takes no async function: only a function that "
                f"returns the {self.returned_as} themselves."
            )
        if kwargs.get(self.returned_as) is not None:
            raise PromptLayerInvalidInputError(
                f"{self.custom_operator_name} takes no {self.returned_as}: the function returns "
                "them."
            )
        kwargs[self.returned_as] = None  # until the function is called
        super().__init__(python_callable=python_callable, **kwargs)

    def execute(self, context: Context) -> Any:
        """Call the function, then start what it has returned, and wait for it."""
        context_merge(context, self.op_kwargs)
        kwargs = determine_kwargs(self.python_callable, self.op_args, context)
        returned = self.python_callable(*self.op_args, **kwargs)
        setattr(self, self.returned_as, returned)
        # Past DecoratedOperator: its own looks for assets in the result, and on Airflow 3.0 fails.
        return super(DecoratedOperator, self).execute(context)

    def _refuse_nothing(self) -> None:
        if getattr(self, self.returned_as) is None:
            raise PromptLayerInvalidInputError(
                f"The function returned None, and not the {self.returned_as}: nothing was started."
            )


class _WorkflowTask(_FunctionTask, PromptLayerRunWorkflowOperator):
    """Run a workflow with the input variables that a function returns."""

    custom_operator_name = "@task.promptlayer_workflow"
    returned_as = "input_variables"
    template_fields = _template_fields(PromptLayerRunWorkflowOperator, returned_as)

    def new_submission(self, context: Context) -> Submission:
        """Return the start of a run."""
        self._refuse_nothing()
        return super().new_submission(context)


class _BatchTask(_FunctionTask, PromptLayerRunWorkflowBatchOperator):
    """Run a workflow for each of the inputs that a function returns as a list."""

    custom_operator_name = "@task.promptlayer_batch"
    returned_as = "inputs"
    template_fields = _template_fields(PromptLayerRunWorkflowBatchOperator, returned_as)

    def get_job(self, context: Context) -> Any:
        """Keep the inputs for later workers, and find the runs of earlier tries."""
        self._refuse_nothing()
        # As text, in which XCom changes nothing.
        self.inputs = encode("inputs", items("inputs", self.inputs)).decode()
        if self.deferrable:  # also without do_xcom_push: it is not the task's result
            xcom.push(context, xcom.INPUTS_KEY, self.inputs)
        return super().get_job(context)

    def new_inputs(self, context: Context) -> BatchInputs:
        """Return the inputs; after a deferral those of the worker that has called the function."""
        if self.inputs is None:
            self.inputs = xcom.pull_own(context, xcom.INPUTS_KEY)
        return super().new_inputs(context)


if TYPE_CHECKING:

    class _TaskFunction(Task[_Arguments, _Returned], Protocol[_Arguments, _Returned]):
        """What Airflow makes of the function, with an output that has nodes and fits any task."""

        __call__: Callable[_Arguments, Any]

        def expand(self, **kwargs: Any) -> Any: ...
        def expand_kwargs(self, kwargs: Any, *, strict: bool = True) -> Any: ...
        def partial(self, **kwargs: Any) -> _TaskFunction[_Arguments, _Returned]: ...
        def override(self, **kwargs: Any) -> _TaskFunction[_Arguments, _Returned]: ...


def promptlayer_workflow_task(
    python_callable: None = None, **kwargs: Unpack[WorkflowTaskKwargs]
) -> Callable[[Callable[_Arguments, _Input]], _TaskFunction[_Arguments, _Input]]:
    """Make a function a task that runs a workflow: ``@task.promptlayer_workflow(…)``.

    The function returns the input variables, as a mapping. The task starts a run, waits for it, and
    returns and pushes what :class:`.PromptLayerRunWorkflowOperator` does.

    The function is called once in each try, before anything is started; not again after a deferral.
    A retry that goes back to the run of an earlier try leaves that run as it is, whatever the
    function returns by then. A template in what the function returns is not rendered.

    :param python_callable: the function, where ``default_args`` have the arguments; else left out.
        It takes what a function of Airflow's ``@task`` takes.
    :param kwargs: those of :class:`.PromptLayerRunWorkflowOperator`, without ``input_variables``.
        ``task_id`` is the function's name if it is left out. ``multiple_outputs`` is refused: every
        node has an XCom of its own.
    :raises PromptLayerInvalidInputError: for ``multiple_outputs=True``.
    """
    return _decorator(_WorkflowTask, python_callable, kwargs)


def promptlayer_batch_task(
    python_callable: None = None, **kwargs: Unpack[BatchTaskKwargs]
) -> Callable[[Callable[_Arguments, _Inputs]], _TaskFunction[_Arguments, _Inputs]]:
    """Make a function a task that runs a workflow for many inputs: ``@task.promptlayer_batch(…)``.

    The function returns a list: of each run the input variables, as a mapping. The task starts the
    runs, waits for them, and returns and pushes what
    :class:`.PromptLayerRunWorkflowBatchOperator` does. If JSON cannot hold an input, nothing is
    started.

    The function is called as :func:`promptlayer_workflow_task` says. So that it need not be called
    again, the list is kept in the XCom ``promptlayer_inputs`` while the task is deferred. A retry
    keeps the runs of the inputs that are in the list again.

    :param python_callable: the function, where ``default_args`` have the arguments; else left out.
    :param kwargs: those of :class:`.PromptLayerRunWorkflowBatchOperator`, without ``inputs``.
        ``task_id`` is the function's name if it is left out. ``multiple_outputs`` is refused: a
        list is returned.
    :raises PromptLayerInvalidInputError: for ``multiple_outputs=True``.
    """
    return _decorator(_BatchTask, python_callable, kwargs)


def _decorator(
    operator: type[_FunctionTask],
    python_callable: Callable[..., Any] | None,
    kwargs: WorkflowTaskKwargs | BatchTaskKwargs,
) -> Callable[..., Any]:
    if kwargs.get("multiple_outputs"):
        raise PromptLayerInvalidInputError(
            f"{operator.custom_operator_name} takes no multiple_outputs."
        )
    # Not None, from which Airflow would conclude it from the type that the function returns.
    arguments: dict[str, Any] = {**kwargs, "multiple_outputs": False}
    return task_decorator_factory(
        python_callable=python_callable, decorated_operator_class=operator, **arguments
    )
