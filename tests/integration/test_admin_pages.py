"""What the admin's pages show: states as words, rows that lead to their neighbours, the trail as sentences."""

import pytest
from django.contrib import admin
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from apps.accounts.models import User
from apps.accounts.roles import Role
from apps.audit import services as audit
from apps.audit.catalogue import EVENT_TYPES
from apps.audit.models import AuditEvent, AuditPersonalValue
from apps.core.actors import SYSTEM, Actor, ActorKind
from apps.kernels.lifecycle import KernelState
from apps.training.lifecycle import RunState
from tests.support import factories, run_rows
from tests.support.admin_rows import Page, make_rows, pages_of

pytestmark = pytest.mark.django_db

MODELS = sorted(model._meta.label_lower for model in admin.site._registry)
QUERIES = ("digits", "00000000-0000-0000-0000-000000000000", "a b 'c\"", "%_\\", "é", "x" * 300)


@pytest.fixture(autouse=True)
def _ada(client: Client) -> None:
    client.force_login(factories.UserFactory(username="ada", role=Role.ADMIN))


def url_of(row: Model, button: str = "change") -> str:
    opts = row._meta
    return reverse(f"admin:{opts.app_label}_{opts.model_name}_{button}", args=[str(getattr(row, "id", row.pk))])


def list_of(model: str) -> str:
    return reverse(f"admin:{model.replace('.', '_')}_changelist")


def text_of(client: Client, url: str) -> str:
    answer = client.get(url)
    assert answer.status_code == 200
    return answer.content.decode()


@pytest.mark.parametrize("model", MODELS)
def test_a_list_answers_whatever_is_searched_for(client: Client, model: str) -> None:
    make_rows()

    answers = {query: client.get(list_of(model), {"q": query}).status_code for query in QUERIES}

    assert set(answers.values()) == {200}


@pytest.mark.parametrize("model", MODELS)
def test_every_choice_of_every_filter_answers(client: Client, model: str) -> None:
    make_rows()

    changelist = client.get(list_of(model)).context["cl"]
    links = [
        choice["query_string"]
        for chosen in changelist.filter_specs
        for choice in chosen.choices(changelist)
        if "query_string" in choice
    ]

    assert {client.get(list_of(model) + link).status_code for link in links} <= {200}


@pytest.mark.parametrize("model", MODELS)
def test_an_address_with_a_malformed_id_is_no_fault(client: Client, model: str) -> None:
    address = f"{list_of(model)}not-an-id/change/"

    assert client.get(address).status_code == 302


def test_the_pages_of_a_whole_run_answer(client: Client) -> None:
    """With every state of a seed, every kind of decision, and an outcome."""
    run = run_rows.make_run(owner=User.objects.get())
    run_rows.make_control(run)

    addresses = [url_of(run), *(f"{list_of(f'training.{name}')}?run__exact={run.pk}" for name in OF_A_RUN)]

    assert {client.get(address).status_code for address in addresses} == {200}


OF_A_RUN = ("seedslot", "seed", "seedtransition", "decision", "epochmetric")


@pytest.mark.parametrize("state", KernelState)
def test_a_state_is_a_word_on_its_colour(client: Client, state: str) -> None:
    kernel = factories.KernelFactory(state=state)

    assert f"{state}\n</span>" in text_of(client, url_of(kernel))
    assert f"{state}\n</span>" in text_of(client, list_of("kernels.kernel"))


class TestNeighbours:
    def test_a_run_leads_to_all_that_it_wrote_down(self, client: Client) -> None:
        rows = make_rows()
        run = rows["training.trainingrun"]

        lists = {item.title: item for item in client.get(url_of(run)).context["neighbours"]}

        assert {title: item.count for title, item in lists.items()} == {
            "Controls": 0,
            "Seed slots": 1,
            "Seeds": 1,
            "Seed transitions": 1,
            "Decisions": 1,
            "Epoch metrics": 1,
            "Recovery events": 1,
            "Checkpoints": 1,
            "Checkpoint jobs": 1,
            "Field reports": 1,
            "Audit events": None,
        }

    def test_each_of_these_lists_holds_what_its_count_says(self, client: Client) -> None:
        rows = make_rows()
        make_rows()  # of another run

        for row in (rows["training.trainingrun"], rows["kernels.kernel"], rows["accounts.user"]):
            for neighbours in client.get(url_of(row)).context["neighbours"]:
                shown = client.get(neighbours.url).context["cl"].result_list
                assert neighbours.count is None or len(shown) == neighbours.count, neighbours.title

    @pytest.mark.parametrize("model", ["kernels.kernel", "blueprints.blueprintversion", "training.trainingrun"])
    def test_no_two_lists_have_the_same_name(self, client: Client, model: str) -> None:
        titles = [item.title for item in client.get(url_of(make_rows()[model])).context["neighbours"]]

        assert len(titles) == len(set(titles))
        assert "+" not in titles

    def test_a_list_that_the_role_may_not_read_is_not_offered(self, client: Client) -> None:
        client.force_login(factories.UserFactory(role=Role.VIEWER, is_staff=True))
        run = factories.RunFactory()

        titles = {item.title for item in client.get(url_of(run)).context["neighbours"]}

        assert "Audit events" not in titles
        assert "Field reports" in titles

    def test_the_history_of_a_row_is_its_events(self, client: Client) -> None:
        kernel = factories.KernelFactory()
        event = audit.record(type="kernel.registered", subject=kernel, actor=SYSTEM)
        audit.record(type="kernel.registered", subject=factories.KernelFactory(), actor=SYSTEM)

        answer = client.get(url_of(kernel, "history"), follow=True)

        assert list(answer.context["cl"].result_list) == [event]

    @pytest.mark.parametrize(
        "page", [page for page in pages_of() if page.verb == "history"], ids=lambda page: page.model
    )
    def test_every_kind_of_subject_is_one_that_events_have(self, page: Page) -> None:
        """A page whose ``subject_type`` no event has would show an empty history for ever."""
        shown = {model._meta.label_lower: registered for model, registered in admin.site._registry.items()}

        assert shown[page.model].subject_type in {"", *(kind.subject for kind in EVENT_TYPES.values())}


class TestTrail:
    def test_an_event_reads_as_a_sentence_with_the_name_of_its_actor(self, client: Client) -> None:
        grace = factories.UserFactory(username="grace")
        kernel = factories.KernelFactory()
        actor = Actor(kind=ActorKind.USER, id=grace.pk, name="grace", address="192.0.2.1")
        audit.record(type="kernel.quarantined", subject=kernel, actor=actor, reason="bad bytes")

        page = text_of(client, list_of("audit.auditevent"))

        assert "grace quarantined the kernel" in page
        assert url_of(kernel) in page
        assert "192.0.2.1" not in page

    def test_an_erased_name_is_said_to_be_erased(self, client: Client) -> None:
        actor = Actor(kind=ActorKind.USER, id=factories.UserFactory().pk, name="grace")
        audit.record(type="kernel.registered", subject=("kernel", "k"), actor=actor)
        AuditPersonalValue.objects.filter(value="grace").update(value=None)

        assert "user (erased) registered the kernel" in text_of(client, list_of("audit.auditevent"))

    def test_what_i_did_shows_my_events_only(self, client: Client) -> None:
        audit.record(type="kernel.registered", subject=("kernel", "k"), actor=SYSTEM)

        answer = client.get(list_of("audit.auditevent"), {"by": "me"})

        assert [event.type for event in answer.context["cl"].result_list] == ["access.login"]

    def test_the_page_of_an_event_checks_its_leaf(self, client: Client) -> None:
        right = audit.record(type="kernel.registered", subject=("kernel", "k"), actor=SYSTEM)
        wrong = factories.AuditEventFactory()
        pages = admin.site._registry[AuditEvent]

        assert pages.leaf_is_right(AuditEvent.objects.get(pk=right.pk))
        assert not pages.leaf_is_right(AuditEvent.objects.get(pk=wrong.pk))
        assert client.get(url_of(wrong)).status_code == 200


def test_runs_and_kernels_lead_to_their_own_pages(client: Client) -> None:
    rows = make_rows()

    for model, path in (("training.trainingrun", "/runs/"), ("kernels.kernel", "/library/kernels/")):
        assert client.get(url_of(rows[model])).context["absolute_url"] == f"{path}{rows[model].pk}"


def test_the_sidebar_search_finds_models_by_name(client: Client) -> None:
    assert reverse("admin:kernels_kernel_changelist") in text_of(client, "/admin/search/?s=kernel")


def test_a_button_needs_the_csrf_token() -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.get(username="ada"))
    run = factories.RunFactory(state=RunState.RUNNING)

    answer = client.post(url_of(run, "stop"), {"reason": "because", "confirmed": "1"})

    assert answer.status_code == 403


def test_a_list_costs_the_same_queries_for_one_row_and_for_many(
    client: Client, django_assert_max_num_queries: object
) -> None:
    def queries_of(model: str) -> int:
        with django_assert_max_num_queries(40) as captured:  # type: ignore[operator]
            client.get(list_of(model))
        return len(captured)

    make_rows()
    few = {model: queries_of(model) for model in MODELS}
    for _ in range(5):
        make_rows()

    assert {model: queries_of(model) for model in MODELS} == few
