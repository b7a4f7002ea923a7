"""What things of the world are called: real breeds of dogs, and invented people, towns and rivers. Each is one or more words."""

BREEDS = (  # roughly as they are met in the street; the place in this list is the rank of Zipf's law
    *("golden retriever", "Labrador retriever", "German shepherd", "French bulldog", "beagle", "poodle", "rottweiler"),
    *("dachshund", "boxer", "Yorkshire terrier", "border collie", "Siberian husky", "Great Dane", "cocker spaniel"),
    *("Boston terrier", "Australian shepherd", "Dalmatian", "Doberman", "pug", "chihuahua", "Bernese mountain dog"),
    *("Pomeranian", "springer spaniel", "shih tzu", "mastiff", "Irish setter", "basset hound", "Newfoundland"),
    *("Maltese", "bull terrier", "whippet", "Saint Bernard", "Jack Russell terrier", "vizsla", "English setter"),
    *("Weimaraner", "bloodhound", "Scottish terrier", "greyhound", "Samoyed", "Airedale terrier", "bullmastiff"),
    *("Rhodesian ridgeback", "fox terrier", "akita", "Belgian shepherd", "bichon frise", "Welsh corgi", "Pekingese"),
    *(
        "Cairn terrier",
        "papillon",
        "Gordon setter",
        "Irish wolfhound",
        "border terrier",
        "Norfolk terrier",
        "Tibetan mastiff",
    ),
    *("Lhasa apso", "Afghan hound", "Leonberger", "basenji", "Pyrenean mountain dog", "Irish terrier", "borzoi"),
    *(
        "Tibetan terrier",
        "keeshond",
        "Lakeland terrier",
        "saluki",
        "field spaniel",
        "Finnish spitz",
        "Norwegian elkhound",
    ),
    *("Clumber spaniel", "pharaoh hound", "Sussex spaniel", "puli", "Bedlington terrier", "komondor", "Ibizan hound"),
    *(
        "Sealyham terrier",
        "kuvasz",
        "otterhound",
        "Skye terrier",
        "Irish water spaniel",
        "harrier",
        "Swiss mountain dog",
    ),
    *(
        "English foxhound",
        "American foxhound",
        "Canaan dog",
        "azawakh",
        "sloughi",
        "Norwegian lundehund",
        "Finnish lapphund",
    ),
    *(
        "Scottish deerhound",
        "Tibetan spaniel",
        "Manchester terrier",
        "Australian terrier",
        "Kerry blue terrier",
        "Norwich terrier",
        "Welsh terrier",
        "Cardigan corgi",
        "Plott hound",
    ),
)
DOGS = (
    *(
        "Bella",
        "Max",
        "Luna",
        "Rex",
        "Daisy",
        "Bruno",
        "Molly",
        "Rocky",
        "Coco",
        "Buddy",
        "Nala",
        "Toby",
        "Lola",
        "Bear",
    ),
    *("Ruby", "Duke", "Poppy", "Scout", "Penny", "Ziggy", "Hazel", "Finn", "Willow", "Gus"),
)
WOMEN = (
    *("Anna", "Clara", "Edith", "Flora", "Greta", "Helen", "Ida", "Jane", "Laura", "Martha", "Nora", "Olive", "Rosa"),
    *("Sarah", "Vera", "Wilma", "Agnes", "Beth", "Cora", "Dora"),
)
MEN = (
    *("Adam", "Boris", "Carl", "David", "Emil", "Frank", "George", "Henry", "Ivan", "Jacob", "Karl", "Leo", "Martin"),
    *("Oscar", "Paul", "Robert", "Simon", "Thomas", "Victor", "Walter"),
)
SURNAMES = (
    *("Archer", "Barlow", "Carter", "Dalton", "Ellis", "Fisher", "Grant", "Hale", "Ingram", "Jarvis", "Keller", "Lowe"),
    *("Mercer", "Nolan", "Osborne", "Palmer", "Quinn", "Rowe", "Shaw", "Turner", "Underhill", "Vance", "Webb", "Yates"),
    *(
        "Abbott",
        "Bishop",
        "Cooper",
        "Drake",
        "Emery",
        "Foster",
        "Garner",
        "Hobbs",
        "Irving",
        "Jensen",
        "Knight",
        "Lambert",
    ),
)
TOWN_BEFORE = ("Port", "Upper", "Lower", "Old", "Great", "Castle")
TOWN_STEMS = (
    *(
        "Ash",
        "Bram",
        "Cald",
        "Dun",
        "Elm",
        "Fen",
        "Gold",
        "Hart",
        "Ivy",
        "Kings",
        "Lin",
        "Marsh",
        "North",
        "Oak",
        "Pen",
    ),
    *("Red", "Stan", "Thorn", "Wick", "Win"),
)
TOWN_ENDS = ("ford", "ton", "bridge", "field", "well", "ham", "by", "mouth", "stead", "worth")
RIVERS = (
    *(
        "Alder",
        "Brent",
        "Cole",
        "Derwen",
        "Esk",
        "Frome",
        "Glaven",
        "Hollow",
        "Isen",
        "Kenna",
        "Lark",
        "Medlock",
        "Nidd",
    ),
    *("Orme", "Perry", "Roding", "Severn", "Tamar", "Umber", "Wharfe"),
)
TRADES = (
    *("baker", "teacher", "farmer", "doctor", "gardener", "carpenter", "nurse", "painter", "miller", "tailor"),
    *("engineer", "librarian", "weaver", "innkeeper", "potter", "actor", "blacksmith", "sailor", "lawyer", "architect"),
)
ACTIVITIES = (
    *("sleep", "play", "run", "swim", "dig", "bark at cats", "chase birds", "eat apples", "watch the ducks"),
    *("hide old shoes", "carry sticks", "roll in the snow"),
)
TIMES = ("in the morning", "at night", "after lunch", "when it rains")
MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November"),
    "December",
)
